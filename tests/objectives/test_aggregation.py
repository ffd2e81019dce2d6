"""Weights of tokens: against the papers' sums, and the same whatever the split into micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retool.objectives.aggregation import constant, sequence_mean, token_mean
from retool.objectives.losses import gspo, ppo_clip
from retool.objectives.registry import lookup

EXACT = {"atol": 1e-6, "rtol": 1e-6}
ROWS = [[1.0, 2.0], [], [10.0, 20.0, 60.0], [5.0]]
LOSSES, LENGTHS = torch.tensor([loss for row in ROWS for loss in row]), torch.tensor([len(row) for row in ROWS])


def total(weights: torch.Tensor) -> float:
    return float((weights * LOSSES).sum())


def test_token_mean_is_the_mean_over_all_tokens() -> None:
    assert total(token_mean(LENGTHS)) == pytest.approx(98 / 6)


def test_sequence_mean_is_the_mean_of_the_trajectories_means() -> None:
    assert total(sequence_mean(LENGTHS)) == pytest.approx((1.5 + 30 + 5) / 3)


def test_constant_divides_by_what_does_not_depend_on_lengths() -> None:
    assert total(constant(LENGTHS, max_tokens=8)) == pytest.approx(98 / (4 * 8))


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [0, 3]])
def test_trajectories_without_tokens_make_no_nan(lengths: list[int]) -> None:
    lengths_B = torch.tensor(lengths, dtype=torch.int64)
    for weights in (token_mean(lengths_B), sequence_mean(lengths_B), constant(lengths_B, max_tokens=8)):
        assert weights.shape == (sum(lengths),) and weights.isfinite().all()


@pytest.mark.parametrize("name", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("policy_loss", [ppo_clip, gspo])
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=8), st.integers(0, 9))
def test_any_split_into_micro_batches_has_the_same_loss_and_gradient(
    name: str, policy_loss: object, rows: list[tuple[int, int]], seed: int
) -> None:
    """Each row is a trajectory's length and the micro-batch that it falls into."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([length for length, _ in rows])
    old, advantages = torch.randn(2, int(lengths.sum()), generator=generator)
    new = (old + 0.3 * torch.randn(old.shape, generator=generator)).requires_grad_()
    weights = lookup("aggregation", name, max_tokens=6)(lengths)
    whole = (weights * policy_loss(new, old, advantages, lengths)[0]).sum()
    whole.backward()
    expected, new.grad = new.grad, None

    summed = 0.0
    for number in range(4):
        chosen = torch.tensor([micro_batch == number for _, micro_batch in rows])
        here = chosen.repeat_interleave(lengths)
        loss, _ = policy_loss(new[here], old[here], advantages[here], lengths[chosen])
        part = (weights[here] * loss).sum()
        part.backward()
        summed += float(part.detach())
    assert summed == pytest.approx(float(whole.detach()), abs=1e-6, rel=1e-6)
    torch.testing.assert_close(new.grad, expected, **EXACT)
