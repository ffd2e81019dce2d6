"""Scores of the learner against the plain way, values and gradients."""

from __future__ import annotations

import asyncio

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from retool.config.schema import SamplingConfig
from retool.errors import UsageError
from retool.learner import logprobs
from retool.learner.batching import Example, make_batch, split_by_tokens
from retool.sampling.choose import transform_logits
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, Segment

EXAMPLES = [
    Example([1, 2, 3, 4, 5, 6, 7], [False, False, True, True, False, True, True]),
    Example([9, 8, 7], [False, True, True]),
    Example([3, 1, 4, 1, 5], [True, True, True, True, True]),
]


def plain(model: PreTrainedModel, example: Example, sampling: SamplingConfig) -> torch.Tensor:
    """One sequence by itself, no padding, all logits at once."""
    ids = torch.tensor([example.ids])
    scores = transform_logits(model(ids).logits[0, :-1], sampling, ids[0, 1:]).log_softmax(-1)
    positions = [t for t in range(1, len(example)) if example.mask[t]]
    return torch.stack([scores[t - 1, example.ids[t]] for t in positions])


@pytest.mark.parametrize("chunk_elements", [1 << 24, 400 * 2])
@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(temperature=0.7, top_p=0.95)])
def test_values_and_gradients_are_those_of_the_plain_way(
    model: PreTrainedModel, chunk_elements: int, sampling: SamplingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", chunk_elements)
    batch = make_batch(EXAMPLES, [0, 1, 2], 0, torch.device("cpu"))
    ours = logprobs.score(model, batch, sampling).logprobs_N
    expected = torch.cat([plain(model, example, sampling) for example in EXAMPLES])
    assert ours.isfinite().all()  # top-p leaves out no token that is scored
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    gradients = []
    for scores in (ours, expected):
        model.zero_grad()
        scores.sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(top_p=0.7), SamplingConfig(top_k=3), SamplingConfig(min_p=0.5)])
def test_the_entropy_has_a_gradient_where_tokens_are_left_out(model: PreTrainedModel, sampling: SamplingConfig) -> None:
    """p log p at p = 0 is 0, and so is its gradient; the product alone gives 0 · −inf."""
    batch = make_batch(EXAMPLES, [0, 1, 2], 0, torch.device("cpu"))
    logprobs.score(model, batch, sampling, entropy=True).entropies_N.sum().backward()
    ours = model.get_output_embeddings().weight.grad.clone()
    model.zero_grad()
    rows = [
        transform_logits(model(torch.tensor([e.ids])).logits[0, :-1], sampling, torch.tensor(e.ids[1:]))
        for e in EXAMPLES
    ]
    for example, logits in zip(EXAMPLES, rows, strict=True):
        for t in range(1, len(example)):
            if example.mask[t]:
                kept = logits[t - 1][logits[t - 1].isfinite()]
                torch.distributions.Categorical(logits=kept).entropy().backward(retain_graph=True)
    torch.testing.assert_close(ours, model.get_output_embeddings().weight.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(temperature=0.7, top_p=0.7), SamplingConfig(top_k=5, min_p=0.01)])
def test_the_learner_finds_the_samplers_log_probabilities_again(
    model: PreTrainedModel, sampling: SamplingConfig
) -> None:
    engine = Engine(model, rows=2, capacity=60)
    params = SamplingParams(sampling, 30, frozenset())

    async def main() -> list[Segment]:
        return await asyncio.gather(*(engine.extend(None, [9, 1], params, lambda _: False, key) for key in range(2)))

    segments = asyncio.run(main())
    examples = [Example([9, 1, *segment.ids], [False] * 2 + [True] * 30) for segment in segments]
    with torch.no_grad():
        found = logprobs.score(model, make_batch(examples, [0, 1], 0, torch.device("cpu")), sampling).logprobs_N
    recorded = torch.tensor([value for segment in segments for value in segment.logprobs])
    torch.testing.assert_close(found, recorded, atol=1e-5, rtol=0)


def test_a_batch_without_targets_has_no_scores(model: PreTrainedModel) -> None:
    batch = make_batch([Example([1, 2], [False, False])], [0], 0, torch.device("cpu"))
    scores = logprobs.score(model, batch, entropy=True)
    assert scores.logprobs_N.shape == scores.entropies_N.shape == (0,)


def test_entropy_is_that_of_the_transformed_distribution(model: PreTrainedModel) -> None:
    sampling = SamplingConfig(temperature=0.7, top_k=20)
    batch = make_batch(EXAMPLES, [2], 0, torch.device("cpu"))
    scores = logprobs.score(model, batch, sampling, entropy=True)
    logits = transform_logits(model(batch.ids_BT).logits[0, :-1], sampling, batch.ids_BT[0, 1:])
    torch.testing.assert_close(scores.entropies_N, torch.distributions.Categorical(logits=logits).entropy())


def test_a_model_that_changes_its_logits_after_the_head_is_refused() -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    config = AutoConfig.for_model("gemma2", **sizes, num_attention_heads=2, num_key_value_heads=1)
    config.final_logit_softcapping = 0.1
    with pytest.raises(UsageError, match="gemma2"):
        logprobs.check_head(AutoModelForCausalLM.from_config(config).eval())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 200))
def test_sequences_are_split_into_batches_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = split_by_tokens(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
