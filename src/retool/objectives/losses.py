"""Losses per token, and how they are summed. Each returns the loss [N] of N model tokens and metrics to be averaged."""

from __future__ import annotations

import torch


def ppo_clip(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """PPO's clipped objective as a loss (arXiv 1707.06347, eq. 7): −min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high) A).

    ρ = exp(logprob − old logprob), both of the distribution that was sampled from.
    """
    ratio_N = (logprobs_N - old_logprobs_N).exp()
    clipped_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    active_N = (clipped_N * advantages_N < ratio_N * advantages_N).float()
    return loss_N, {"clip_fraction": active_N.detach(), "ratio": ratio_N.detach()}


def value_clip(
    values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, clip: float = 0.2
) -> torch.Tensor:
    """The critic's squared error, pessimistic about moves of more than `clip` since the rollout: ½ max(e², e_clip²)."""
    near_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_N - returns_N).square(), (near_N - returns_N).square())


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """1 − Var(returns − values) / Var(returns): 1 is a perfect critic, 0 one that knows the mean only."""
    if returns_N.numel() < 2 or (variance := returns_N.var()) == 0:
        return 0.0
    return float(1.0 - (returns_N - values_N).var() / variance)
