"""Losses and their gradients, by autograd of the definitions; the critic's loss."""

from __future__ import annotations

import math

import pytest
import torch

from retool.objectives.aggregation import sequence_mean
from retool.objectives.losses import cispo, explained_variance, gspo, ppo_clip, reinforce, value_clip

EXACT = {"atol": 1e-6, "rtol": 1e-6}
LENGTHS = torch.tensor([70, 0, 30, 100])
NAMED = [ppo_clip, gspo, cispo, reinforce]


def sample(spread_of_policies: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    old, advantages = -torch.rand(200, dtype=torch.float64), torch.randn(200, dtype=torch.float64)
    new = (old + spread_of_policies * torch.randn(200, dtype=torch.float64)).requires_grad_()
    return new, old, advantages


def gradient(loss: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss.sum(), of, retain_graph=True)[0]


def check(found: torch.Tensor, expected: torch.Tensor, of: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(gradient(found, of), gradient(expected, of), **EXACT)


def clipped(ratio: torch.Tensor, advantage: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.min(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)


@pytest.mark.parametrize("ceiling", [None, 1.5])
def test_ppo_is_the_clipped_objective_token_by_token(ceiling: float | None) -> None:
    new, old, advantages = sample()
    expected = []
    for logprob, before, advantage in zip(new, old, advantages, strict=True):
        objective = clipped(torch.exp(logprob - before), advantage, 0.2, 0.28)
        expected.append(-(torch.max(objective, ceiling * advantage) if ceiling and advantage < 0 else objective))
    loss, _ = ppo_clip(new, old, advantages, LENGTHS, clip_low=0.2, clip_high=0.28, dual_clip=ceiling)
    check(loss, torch.stack(expected), new)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "decided"),
    [
        (1.0, 1.0, -1.0, 0),
        (1.5, 1.0, -1.2, 1),
        (0.5, 1.0, -0.5, 0),
        (0.5, -1.0, 0.8, 1),
        (1.5, -1.0, 1.5, 0),
        (3.5, -1.0, 3.0, 1),
        (9.0, -2.0, 6.0, 1),
        (9.0, 2.0, -2.4, 1),
    ],
)
def test_it_clips_only_where_the_policy_has_moved_with_the_advantage_or_too_far_against_it(
    ratio: float, advantage: float, loss: float, decided: int
) -> None:
    one = torch.tensor([1])
    found, metrics = ppo_clip(torch.tensor([ratio]).log(), torch.zeros(1), torch.tensor([advantage]), one, dual_clip=3)
    torch.testing.assert_close(found, torch.tensor([loss]))
    assert metrics["clip_fraction"].tolist() == [decided]


def test_gspo_with_sequence_mean_is_the_objective_on_sequences() -> None:
    """−mean_i min(s_i A_i, clip(s_i) A_i) with s_i = (π(y) / π_old(y))^(1/|y|), differentiated as it stands."""
    new, old, _ = sample(spread_of_policies=0.01)
    advantages = torch.tensor([1.0, 5.0, -1.0, 0.5], dtype=torch.float64)
    objectives, ratios = [], []
    for logprobs, before, advantage in zip(
        new.split([70, 0, 30, 100]), old.split([70, 0, 30, 100]), advantages, strict=True
    ):
        if len(logprobs):
            ratios.append((torch.exp(logprobs.sum() - before.sum())) ** (1 / len(logprobs)))
            objectives.append(clipped(ratios[-1], advantage, 1e-3, 5e-4))
    expected = -torch.stack(objectives).mean()
    loss, metrics = gspo(new, old, advantages.repeat_interleave(LENGTHS), LENGTHS, clip_low=1e-3, clip_high=5e-4)
    weights = sequence_mean(LENGTHS).double()
    torch.testing.assert_close((weights * loss).sum(), expected, **EXACT)
    torch.testing.assert_close(gradient(weights * loss, new), gradient(expected, new), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(metrics["ratio"][[0, 70, 199]], torch.stack(ratios).detach(), **EXACT)
    assert 0 < metrics["clip_fraction"].mean() < 1


def test_gspos_tokens_move_by_their_own_advantage() -> None:
    old = torch.full((4,), -1.0)
    new = old.clone().requires_grad_()
    loss, _ = gspo(new, old, torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([4]))
    assert gradient(loss, new).tolist() == [-1, -2, -3, -4]


def test_cispo_clips_the_weight_and_keeps_every_tokens_gradient() -> None:
    new, old, advantages = sample()
    weight = torch.exp(new.detach() - old).clamp(0.8, 1.3)
    loss, metrics = cispo(new, old, advantages, LENGTHS, clip_low=0.2, clip_high=0.3)
    check(loss, -weight * advantages * new, new)
    assert metrics["clip_fraction"].mean() > 0.3 and gradient(loss, new).all()


def test_cispo_has_no_lower_bound_of_its_own_and_an_upper_one_at_five() -> None:
    ratios = torch.tensor([1e-6, 1.0, 4.9, 5.1, 100.0])
    new = ratios.log().requires_grad_()
    loss, _ = cispo(new, torch.zeros(5), torch.ones(5), torch.tensor([5]))
    torch.testing.assert_close(gradient(loss, new), -torch.tensor([1e-6, 1.0, 4.9, 5.0, 5.0]), **EXACT)


def test_reinforce_has_the_gradient_of_the_unclipped_surrogate() -> None:
    new, old, advantages = sample()
    loss, metrics = reinforce(new, old, advantages, LENGTHS)
    torch.testing.assert_close(gradient(loss, new), gradient(-torch.exp(new - old) * advantages, new), **EXACT)
    assert not metrics["clip_fraction"].any()
    on_policy, _ = reinforce(new, new.detach(), advantages, LENGTHS)
    check(on_policy, -advantages * new, new)


@pytest.mark.parametrize("loss", NAMED)
def test_before_the_first_update_all_have_the_policy_gradient(loss: object) -> None:
    new, _, advantages = sample()
    found, metrics = loss(new, new.detach(), advantages, LENGTHS)
    torch.testing.assert_close(gradient(found, new), -advantages, **EXACT)
    assert metrics["ratio"].eq(1).all() and not metrics["kl_old"].any() and not metrics["clip_fraction"].any()


@pytest.mark.parametrize("loss", NAMED)
def test_a_wild_ratio_of_a_token_without_advantage_is_no_nan(loss: object) -> None:
    found, _ = loss(torch.tensor([0.0, 0.0]), torch.tensor([-500.0, 500.0]), torch.zeros(2), torch.tensor([1, 1]))
    assert found.tolist() == [0, 0]


@pytest.mark.parametrize("loss", NAMED)
def test_metrics_are_per_token_and_carry_no_gradient_and_low_precision_is_raised(loss: object) -> None:
    new, old, advantages = (x.detach().bfloat16() for x in sample())
    found, metrics = loss(new.requires_grad_(), old, advantages, LENGTHS)
    assert found.dtype is torch.float32 and found.requires_grad
    assert {name: (x.shape, x.requires_grad) for name, x in metrics.items()} == dict.fromkeys(
        ("ratio", "clip_fraction", "kl_old"), (found.shape, False)
    )


def test_the_old_policys_divergence_is_estimated_from_its_own_tokens() -> None:
    new, old, advantages = sample()
    expected = [math.exp(a - b) - 1 - (a - b) for a, b in zip(new.tolist(), old.tolist(), strict=True)]
    found = ppo_clip(new, old, advantages, LENGTHS)[1]["kl_old"]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_the_critic_gains_nothing_by_a_leap() -> None:
    values = torch.tensor([0.0, 0.1, 1.0], requires_grad=True)
    loss = value_clip(values, torch.zeros(3), torch.ones(3), clip=0.2)
    torch.testing.assert_close(loss, 0.5 * torch.tensor([1.0, 0.81, 0.64]))
    assert gradient(loss, values)[2] == 0
    unclipped = value_clip(values, torch.zeros(3), torch.ones(3), clip=None)
    torch.testing.assert_close(unclipped, 0.5 * torch.tensor([1.0, 0.81, 0.0]))


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_the_mean() -> None:
    returns = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert explained_variance(returns, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((4,), 0.5), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(torch.zeros(4), torch.ones(4)) == 0.0
    assert explained_variance(torch.zeros(1), torch.ones(1)) == 0.0
