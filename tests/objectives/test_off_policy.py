"""Importance weights: the definitions, what they correct, and decoupled PPO composed of them."""

from __future__ import annotations

import math

import pytest
import torch

from retool.errors import UsageError
from retool.objectives.losses import ppo_clip
from retool.objectives.off_policy import masked, staleness, truncated

EXACT = {"atol": 1e-6, "rtol": 1e-6}
ROWS = [[math.log(x) for x in row] for row in ([0.5, 4.0, 1.0], [], [3.0], [1.1, 0.9, 1.2, 0.8])]
LENGTHS = torch.tensor([len(row) for row in ROWS])
GAPS = torch.tensor([gap for row in ROWS for gap in row])
BEHAVIOUR = torch.full_like(GAPS, -2.0)

TOKEN = [[math.exp(gap) for gap in row] for row in ROWS]
SEQUENCE = [[math.exp(sum(row))] * len(row) for row in ROWS]
GEOMETRIC = [[math.exp(sum(row) / len(row))] * len(row) for row in ROWS if row]
RATIOS = {"token": TOKEN, "sequence": SEQUENCE, "geometric": GEOMETRIC}


def by_level(level: str) -> list[float]:
    return [ratio for row in RATIOS[level] for ratio in row]


@pytest.mark.parametrize("level", RATIOS)
def test_truncated_weights_end_at_the_cap(level: str) -> None:
    weights, _ = truncated(BEHAVIOUR + GAPS, BEHAVIOUR, LENGTHS, level=level, cap=1.5)
    torch.testing.assert_close(weights, torch.tensor([min(ratio, 1.5) for ratio in by_level(level)]), **EXACT)


@pytest.mark.parametrize("level", RATIOS)
def test_masked_weights_are_the_ratio_inside_and_nothing_outside(level: str) -> None:
    expected = torch.tensor([ratio if 0.9 <= ratio <= 2.5 else 0.0 for ratio in by_level(level)])
    settings = {"level": level, "low": 0.9 - 1e-6, "high": 2.5}
    weights, _ = masked(BEHAVIOUR + GAPS, BEHAVIOUR, LENGTHS, **settings)
    torch.testing.assert_close(weights, expected, **EXACT)
    rejected, _ = masked(BEHAVIOUR + GAPS, BEHAVIOUR, LENGTHS, weighted=False, **settings)
    assert rejected.equal((expected > 0).float())


def test_shares_are_of_tokens_at_token_level_and_of_trajectories_at_the_others() -> None:
    def share(correct: object, name: str, **settings: object) -> float:
        return float(correct(BEHAVIOUR + GAPS, BEHAVIOUR, LENGTHS, **settings)[1][name])

    assert share(truncated, "truncated", cap=1.5) == pytest.approx(2 / 8)
    assert share(truncated, "truncated", level="sequence", cap=1.5) == pytest.approx(2 / 3)
    assert share(masked, "masked", level="token", low=0.7, high=2.0) == pytest.approx(3 / 8)
    assert share(masked, "masked", low=0.7, high=2.5) == pytest.approx(1 / 3)


@pytest.mark.parametrize("level", RATIOS)
def test_the_effective_sample_size_is_the_squared_sum_over_the_sum_of_squares(level: str) -> None:
    samples = by_level(level) if level == "token" else [row[0] for row in RATIOS[level] if row]
    expected = sum(samples) ** 2 / (len(samples) * sum(w * w for w in samples))
    _, metrics = truncated(BEHAVIOUR + GAPS, BEHAVIOUR, LENGTHS, level=level, cap=100.0)
    assert float(metrics["effective_sample_size"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("correct", [truncated, masked])
@pytest.mark.parametrize("level", RATIOS)
def test_where_sampler_and_learner_agree_nothing_is_changed(correct: object, level: str) -> None:
    weights, metrics = correct(BEHAVIOUR, BEHAVIOUR, LENGTHS, level=level)
    assert weights.eq(1).all()
    assert {name: float(value) for name, value in metrics.items()} == {
        correct.__name__: 0.0,
        "effective_sample_size": pytest.approx(1.0),
    }


@pytest.mark.parametrize("correct", [truncated, masked])
@pytest.mark.parametrize("level", RATIOS)
def test_wild_ratios_and_no_tokens_make_no_nan(correct: object, level: str) -> None:
    wild = torch.tensor([-900.0, 900.0])
    for gaps, lengths in ((wild, [1, 1]), (-wild.abs(), [2]), (torch.zeros(0), [0]), (torch.zeros(0), [])):
        weights, metrics = correct(gaps, torch.zeros_like(gaps), torch.tensor(lengths, dtype=torch.int64), level=level)
        assert weights.isfinite().all() and all(value.isfinite() for value in metrics.values())


def test_weights_carry_no_gradient() -> None:
    learner = BEHAVIOUR.clone().requires_grad_()
    assert not truncated(learner, BEHAVIOUR, LENGTHS)[0].requires_grad
    assert not masked(learner, BEHAVIOUR, LENGTHS)[0].requires_grad


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'turn'.*token or sequence or geometric"):
        truncated(BEHAVIOUR, BEHAVIOUR, LENGTHS, level="turn")


def test_untruncated_weights_make_a_mean_under_the_sampler_one_under_the_learner() -> None:
    torch.manual_seed(0)
    learner, sampler = torch.randn(2, 6, dtype=torch.float64).log_softmax(1)
    value = torch.randn(6, dtype=torch.float64)
    weights, _ = truncated(learner, sampler, torch.ones(6, dtype=torch.int64), cap=math.inf)
    torch.testing.assert_close((sampler.exp() * weights * value).sum(), (learner.exp() * value).sum(), **EXACT)


def test_decoupled_ppo_is_ppo_around_the_proximal_policy_weighted_by_proximal_over_behaviour() -> None:
    torch.manual_seed(0)
    behaviour, advantages = -torch.rand(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    proximal = behaviour + 0.5 * torch.randn(50, dtype=torch.float64)
    new = (proximal + 0.3 * torch.randn(50, dtype=torch.float64)).requires_grad_()
    lengths = torch.tensor([20, 30])

    ratio = torch.exp(new - proximal)
    surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    expected = -torch.exp(proximal - behaviour) * surrogate

    loss, _ = ppo_clip(new, proximal, advantages, lengths)
    weights, _ = truncated(proximal, behaviour, lengths, cap=math.inf)
    torch.testing.assert_close(weights * loss, expected, **EXACT)
    found, wanted = (torch.autograd.grad(x.sum(), new, retain_graph=True)[0] for x in (weights * loss, expected))
    torch.testing.assert_close(found, wanted, **EXACT)


def test_staleness_counts_updates_since_the_token_was_written() -> None:
    assert staleness(7, torch.tensor([7, 6, 4])).tolist() == [0, 1, 3]
