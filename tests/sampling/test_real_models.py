"""The engine on real models: greedy tokens and log-probabilities are those of transformers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.sampling.engine import Engine
from retool.sampling.sampler import ForbidFunction, SamplingParams, Segment

FOLDER = os.environ.get("RETOOL_TEST_MODELS")
MODELS = sorted(path.parent for path in Path(FOLDER).glob("*/config.json")) if FOLDER else []
PROMPTS = [
    "Natalia sold 48 clips in April and half as many in May. How many did she sell altogether?",
    "def fibonacci(n):",
    "The capital of France is",
    "Q: What is 17 * 23? A:",
]
TOKENS = 48

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODELS, reason="RETOOL_TEST_MODELS names no folder with Hugging Face models in it"),
]


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_tokens_and_log_probabilities_are_those_of_transformers(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    length = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    greedy = [model.generate(torch.tensor([ids]), do_sample=False, **length)[0, len(ids) :] for ids in prompts]
    engine = Engine(model, rows=3, capacity=max(map(len, prompts)) + TOKENS)

    async def sample(temperature: float) -> list[Segment]:
        async def one(key: int, ids: list[int]) -> Segment:
            params = SamplingParams(SamplingConfig(temperature=temperature), TOKENS, frozenset(), _never_ends(model))
            segment = await engine.extend(None, ids, params, lambda _: False, key)
            engine.release(segment.handle)
            return segment

        return await asyncio.gather(*(one(key, ids) for key, ids in enumerate(prompts)))

    for segment, expected in zip(asyncio.run(sample(0.0)), greedy, strict=True):
        assert segment.ids == expected.tolist()
    gaps = [_gaps(model, ids, segment) for ids, segment in zip(prompts, asyncio.run(sample(1.0)), strict=True)]
    assert float(torch.cat(gaps).max()) < 1e-4
    assert float(torch.cat(gaps).mean()) < 1e-5


def _never_ends(model: PreTrainedModel) -> ForbidFunction:
    ends = model.generation_config.eos_token_id
    banned = [ends] if isinstance(ends, int) else list(ends or ())
    return lambda _: banned


def _gaps(model: PreTrainedModel, prompt: list[int], segment: Segment) -> torch.Tensor:
    """How far the model's own log-probabilities are from those of one plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + segment.ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    plain = logits.double().log_softmax(-1).gather(-1, torch.tensor(segment.ids)[:, None]).squeeze(-1)
    return (torch.tensor(segment.model_logprobs).double() - plain).abs()
