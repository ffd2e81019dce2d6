"""Scores of the learner against the plain way, values and gradients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.learner import logprobs
from retool.learner.logprobs import score
from retool.learner.packing import Example, make_batch
from retool.sampling.choose import transform_logits
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, Segment

CPU = torch.device("cpu")
EXAMPLES = [
    Example([1, 2, 3, 4, 5, 6, 7], [False, False, True, True, False, True, True]),
    Example([9, 8, 7], [False, True, True]),
    Example([3, 1, 4, 1, 5], [True, True, True, True, True]),
]
TRUNCATED = [SamplingConfig(top_p=0.7), SamplingConfig(top_k=3), SamplingConfig(min_p=0.5)]


def plain(model: PreTrainedModel, example: Example, sampling: SamplingConfig) -> torch.Tensor:
    """The transformed logits of one sequence's targets: by itself, all at once, [targets, V]."""
    ids = torch.tensor(example.ids)
    logits = transform_logits(model(ids[None], use_cache=False).logits[0, :-1], sampling, ids[1:])
    return logits[[t - 1 for t in range(1, len(ids)) if example.mask[t]]]


def targets(example: Example) -> torch.Tensor:
    return torch.tensor([example.ids[t] for t in range(1, len(example)) if example.mask[t]])


def plain_logprobs(model: PreTrainedModel, sampling: SamplingConfig) -> torch.Tensor:
    parts = [(plain(model, example, sampling).log_softmax(-1), targets(example)) for example in EXAMPLES]
    return torch.cat([logprobs.gather(1, ids[:, None]).squeeze(1) for logprobs, ids in parts])


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


class LowRank(nn.Module):
    """A head with an adapter: not a matrix in one piece."""

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.head, self.down = head, nn.Linear(head.in_features, 2)
        self.up = nn.Linear(2, head.out_features)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.head(states) + self.up(self.down(states))


def untied(model: PreTrainedModel, bias: bool) -> None:
    rows, size = model.lm_head.weight.shape
    model.lm_head = nn.Linear(size, rows, bias=bias)


HEADS = {
    "tied": lambda model: None,
    "untied": lambda model: untied(model, bias=False),
    "with a bias": lambda model: untied(model, bias=True),
    "cut": lambda model: model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits[..., :300]),
    "with an adapter": lambda model: model.set_output_embeddings(LowRank(model.lm_head)),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chunk_elements", [1 << 24, 400 * 2])
@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(temperature=0.7), SamplingConfig(temperature=0.7, top_p=0.95)]
)
def test_values_and_gradients_are_those_of_the_plain_way(
    model: PreTrainedModel, head: str, chunk_elements: int, sampling: SamplingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", chunk_elements)
    HEADS[head](model)
    ours = score(model, make_batch(EXAMPLES, [0, 1, 2], CPU), sampling).logprobs_N
    expected = plain_logprobs(model, sampling)
    assert ours.isfinite().all()  # top-p leaves out no token that is scored
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    found = gradients(model, ours.sum())
    torch.testing.assert_close(found, gradients(model, expected.sum()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(temperature=0.7), *TRUNCATED])
def test_the_entropy_and_its_gradient_are_those_of_the_transformed_distribution(
    model: PreTrainedModel, sampling: SamplingConfig
) -> None:
    """p log p at p = 0 is 0, and so is its gradient; the product alone gives 0 · −inf."""
    ours = score(model, make_batch(EXAMPLES, [0, 1, 2], CPU), sampling, entropy=True).entropies_N
    rows = [row[row.isfinite()] for example in EXAMPLES for row in plain(model, example, sampling)]
    expected = torch.stack([torch.distributions.Categorical(logits=row).entropy() for row in rows])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    found = gradients(model, ours.sum())
    torch.testing.assert_close(found, gradients(model, expected.sum()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_p=0.7)])
def test_a_token_is_on_top_if_the_model_would_have_chosen_it(model: PreTrainedModel, sampling: SamplingConfig) -> None:
    with torch.no_grad():
        said = [*EXAMPLES[0].ids[:-1], int(plain(model, EXAMPLES[0], sampling)[-1].argmax())]
        examples = [*EXAMPLES, Example(said, EXAMPLES[0].mask)]
        found = score(model, make_batch(examples, range(len(examples)), CPU), sampling).is_top_N.tolist()
        chosen = [plain(model, each, sampling).argmax(-1).tolist() for each in examples]
    assert found == [
        top == int(token)
        for tops, each in zip(chosen, examples, strict=True)
        for top, token in zip(tops, targets(each), strict=True)
    ]
    assert found[-1]


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
        found = score(model, make_batch(examples, [0, 1], CPU), sampling).logprobs_N
    recorded = torch.tensor([value for segment in segments for value in segment.logprobs])
    torch.testing.assert_close(found, recorded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_p=0.7)])
def test_a_batch_without_targets_has_no_scores_and_a_gradient_of_zero(
    model: PreTrainedModel, sampling: SamplingConfig
) -> None:
    scores = score(model, make_batch([Example([1, 2], [False, False])], [0], CPU), sampling, entropy=True)
    assert scores.logprobs_N.shape == scores.entropies_N.shape == (0,)
    assert all(not gradient.any() for gradient in gradients(model, scores.logprobs_N.sum()))


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_p=0.7)])
def test_a_sharded_model_has_the_same_scores_and_gradients(
    model: PreTrainedModel, sampling: SamplingConfig, process_group: None
) -> None:
    expected = score(model, make_batch(EXAMPLES, [0, 1, 2], CPU), sampling).logprobs_N
    names = [name for name, _ in model.named_parameters()]  # sharding changes their order
    expected_gradients = dict(zip(names, gradients(model, expected.sum()), strict=True))
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for _ in range(2):  # what the first pass gathered is given back before the second
        model.zero_grad()
        found = score(model, make_batch(EXAMPLES, [0, 1, 2], CPU), sampling).logprobs_N
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        found.sum().backward()
    ours = {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}
    torch.testing.assert_close(ours, expected_gradients, atol=1e-5, rtol=1e-4)
