"""The policy as it is loaded: what it can say is what its tokenizer can read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from retool.config.sampling import SamplingConfig
from retool.config.schema import ModelConfig
from retool.learner.compatibility import check_learnable
from retool.learner.logprobs import score
from retool.learner.packing import Example, make_batch
from retool.learner.policy import load_policy
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, Segment


@pytest.fixture
def padded_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A model with 64 rows more than its tokenizer has ids, whose logits are the largest by far."""
    model.resize_token_embeddings(len(tokenizer) + 64)
    with torch.no_grad():
        model.get_output_embeddings().weight[len(tokenizer) :].normal_(std=20.0)
    model.save_pretrained(tmp_path / "padded")
    tokenizer.save_pretrained(tmp_path / "padded")
    return tmp_path / "padded"


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_p=0.9), SamplingConfig(temperature=0.0)])
def test_ids_that_the_tokenizer_does_not_have_are_neither_sampled_nor_scored(
    padded_folder: Path, sampling: SamplingConfig
) -> None:
    model, tokenizer = load_policy(ModelConfig(path=str(padded_folder), device="cpu"))
    check_learnable(model)
    engine = Engine(model.eval(), rows=2, capacity=60)
    params = SamplingParams(sampling, 30, frozenset())

    async def main() -> list[Segment]:
        return await asyncio.gather(*(engine.extend(None, [9, 1], params, lambda _: False, key) for key in range(2)))

    segments = asyncio.run(main())
    assert max(max(segment.ids) for segment in segments) < len(tokenizer)
    examples = [Example([9, 1, *segment.ids], [False] * 2 + [True] * 30) for segment in segments]
    with torch.no_grad():
        found = score(model, make_batch(examples, [0, 1], torch.device("cpu")), sampling).logprobs_N
    recorded = torch.tensor([value for segment in segments for value in segment.logprobs])
    torch.testing.assert_close(found, recorded, atol=1e-5, rtol=0)


def test_a_padded_model_keeps_its_shape_in_a_checkpoint(padded_folder: Path, tmp_path: Path) -> None:
    model, _ = load_policy(ModelConfig(path=str(padded_folder), device="cpu"))
    model.save_pretrained(tmp_path / "again")
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (padded_folder, tmp_path / "again"))
    torch.testing.assert_close(dict(after.state_dict()), dict(before.state_dict()), rtol=0, atol=0)
