"""PPO's clipped loss, its gradient by autograd of the definition, and the critic's loss."""

from __future__ import annotations

import pytest
import torch

from retool.objectives.losses import explained_variance, ppo_clip, value_clip
from retool.objectives.rewards import outcome_reward
from retool.types import Problem, Trajectory


def by_definition(new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> list:
    """−min(ρA, clip(ρ)A), token by token."""
    losses = []
    for logprob, before, advantage in zip(new, old, advantages, strict=True):
        ratio = torch.exp(logprob - before)
        clipped = torch.clamp(ratio, 1 - low, 1 + high)
        losses.append(-torch.min(ratio * advantage, clipped * advantage))
    return losses


def test_loss_and_gradient_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    old, advantages = -torch.rand(200), torch.randn(200)
    new = (old + 0.5 * torch.randn(200)).requires_grad_()
    loss, _ = ppo_clip(new, old, advantages, 0.2, 0.28)
    expected = torch.stack(by_definition(new, old, advantages, 0.2, 0.28))
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value.sum(), new, retain_graph=True)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [(1.0, 1.0, -1.0, 0), (1.5, 1.0, -1.2, 1), (0.5, 1.0, -0.5, 0), (0.5, -1.0, 0.8, 1), (1.5, -1.0, 1.5, 0)],
)
def test_it_clips_only_where_the_policy_has_moved_with_the_advantage(
    ratio: float, advantage: float, loss: float, clipped: int
) -> None:
    found, metrics = ppo_clip(torch.tensor([ratio]).log(), torch.zeros(1), torch.tensor([advantage]))
    torch.testing.assert_close(found, torch.tensor([loss]))
    assert metrics["clip_fraction"].tolist() == [clipped]


def test_the_critic_gains_nothing_by_a_leap() -> None:
    values = torch.tensor([0.0, 0.1, 1.0], requires_grad=True)
    loss = value_clip(values, torch.zeros(3), torch.ones(3), clip=0.2)
    torch.testing.assert_close(loss, 0.5 * torch.tensor([1.0, 0.81, 0.64]))
    assert torch.autograd.grad(loss.sum(), values)[0][2] == 0


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_the_mean() -> None:
    returns = torch.tensor([1.0, -1.0, 1.0, 1.0])
    assert explained_variance(returns, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((4,), 0.5), returns) == pytest.approx(0.0)
    assert explained_variance(torch.zeros(4), torch.ones(4)) == 0.0
    assert explained_variance(torch.zeros(1), torch.ones(1)) == 0.0


def test_the_reward_is_plus_or_minus_one() -> None:
    trajectory = Trajectory("t", 1, "a", 0, 0, "g", "m", "tags", Problem("p", "?", "1", "s"), [])
    assert outcome_reward(trajectory) == {"total": -1.0}
    trajectory.correct = True
    assert outcome_reward(trajectory) == {"total": 1.0}
