"""Advantages: how much better each token turned out than was expected of it."""

from __future__ import annotations

import torch


def gae(
    rewards_B: torch.Tensor, values_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float = 1.0, lam: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (arXiv 1506.02438, eq. 16) with one reward at the end of each trajectory.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γ λ A_{t+1}, where t runs over the *model's* tokens: between two calls
    the step leads from the last token before the result to the first after it, with no discount for what the
    interpreter wrote. `values_BT[b, t]` is the critic's estimate before token t is written. The reward comes with the
    last model token, after which the value is 0.

    Returns advantages [B, T] and returns A + V [B, T]; both are 0 where the mask is False.
    """
    advantages_BT = torch.zeros_like(values_BT)
    next_value_B = torch.zeros_like(rewards_B)
    next_advantage_B = torch.zeros_like(rewards_B)
    reward_left_B = rewards_B.clone()
    for t in reversed(range(values_BT.shape[1])):
        here_B = mask_BT[:, t]
        delta_B = reward_left_B + gamma * next_value_B - values_BT[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        advantages_BT[:, t] = torch.where(here_B, advantage_B, 0.0)
        next_advantage_B = torch.where(here_B, advantage_B, next_advantage_B)
        next_value_B = torch.where(here_B, values_BT[:, t], next_value_B)
        reward_left_B = torch.where(here_B, 0.0, reward_left_B)
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def whiten(advantages_BT: torch.Tensor, mask_BT: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """Shift and scale to mean 0 and deviation 1 over the tokens in the mask; 0 elsewhere."""
    chosen = advantages_BT[mask_BT]
    if chosen.numel() < 2:
        return torch.where(mask_BT, advantages_BT, 0.0)
    scaled_BT = (advantages_BT - chosen.mean()) / (chosen.std() + eps)
    return torch.where(mask_BT, scaled_BT, 0.0)
