"""Advantages: how much better it turned out than was expected.

`gae` needs a critic and speaks of tokens. The others, of kind "advantage", compare rewards only: from `rewards_B` and
`groups_B` (int: equal for samples of one problem, in any order) to advantages [B], the same for all tokens of a
trajectory (`ragged.spread`). Deviations are the unbiased ones (n − 1), as in TRL and verl. A group of one, or one whose
rewards are equal, has nothing to compare: its gaps to the group's mean are exactly 0.
"""

from __future__ import annotations

import torch

from retool.objectives.ragged import at_least_fp32, spread, sums, tokens_after
from retool.objectives.registry import register


def gae(
    rewards_B: torch.Tensor,
    values_N: torch.Tensor,
    lengths_B: torch.Tensor,
    gamma: float = 1.0,
    lam: float | torch.Tensor = 1.0,
    critic_lam: float | torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (arXiv 1506.02438, eq. 16) with one reward at the end of each trajectory.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = Σ_k (γλ)^k δ_{t+k}, where t runs over the *model's* tokens: between two turns
    the step leads from the last token before the result to the first after it, with no discount for what the
    interpreter wrote. `values_N[t]` is the critic's estimate before token t is written. The reward comes with the last
    model token, after which the value is 0; it is lost on a trajectory without tokens.

    `lam` is a number or one per trajectory, [B] (`adaptive_lambda`). `critic_lam`, if given, is the λ of the returns:
    with 1 the critic learns from unbiased returns whatever the policy's λ (decoupled GAE: arXiv 2503.01491; VAPO, arXiv
    2504.05118, §4.1).

    Returns advantages A [N] and returns A + V [N]. The sums are taken by doubling: log₂ T steps, no loop over tokens.
    """
    values_N = at_least_fp32(values_N)
    after_N = tokens_after(lengths_B)
    last_N = after_N == 0
    rewards_N = torch.where(last_N, spread(rewards_B.to(values_N), lengths_B), 0.0)
    next_values_N = torch.where(last_N, 0.0, values_N.roll(-1))
    deltas_N = rewards_N + gamma * next_values_N - values_N

    def discounted(lam: float | torch.Tensor) -> torch.Tensor:
        decay_B = torch.as_tensor(gamma * lam, dtype=values_N.dtype, device=values_N.device).expand(len(lengths_B))
        return _discounted_sums(deltas_N, spread(decay_B, lengths_B), after_N)

    advantages_N = discounted(lam)
    return advantages_N, values_N + (advantages_N if critic_lam is None else discounted(critic_lam))


def _discounted_sums(x_N: torch.Tensor, decay_N: torch.Tensor, after_N: torch.Tensor) -> torch.Tensor:
    """Σ_k decay^k x_{t+k} to the end of each trajectory. After each round the sums cover twice as many tokens."""
    longest = int(after_N.max()) + 1 if len(after_N) else 0
    covered = 1
    while covered < longest:
        x_N = x_N + decay_N * torch.where(after_N >= covered, x_N.roll(-covered), 0.0)
        decay_N = decay_N.square()
        covered *= 2
    return x_N


def adaptive_lambda(lengths_B: torch.Tensor, alpha: float = 0.05) -> torch.Tensor:
    """λ = 1 − 1/(α l) for a trajectory of l model tokens, [B] (VAPO, arXiv 2504.05118, §4.2): the weights λ^t of the δs
    then sum up to about α l. Where that is negative, l < 1/α, λ is 0."""
    return (1.0 - 1.0 / (alpha * lengths_B.clamp(min=1).float())).clamp(min=0.0)


def whiten(x_N: torch.Tensor, weights_N: torch.Tensor | None = None, eps: float = 1e-8) -> torch.Tensor:
    """(x − mean) / (std + ε), [N]. `weights_N` (a mask or counts ≥ 0) says how often each entry counts; where it is 0
    the result is 0. Fewer than two entries have no deviation and stay as they are."""
    x_N = at_least_fp32(x_N)
    weights_N = torch.ones_like(x_N, dtype=torch.double) if weights_N is None else weights_N.double()
    count = weights_N.sum()
    gaps_N = x_N - (weights_N * x_N).sum() / count
    std = ((weights_N * gaps_N.square()).sum() / (count - 1)).sqrt()
    white_N = torch.where(count >= 2, gaps_N / (std + eps), x_N)
    return torch.where(weights_N > 0, white_N, 0.0).to(x_N.dtype)


@register("advantage", "grpo")
def grpo(rewards_B: torch.Tensor, groups_B: torch.Tensor, *, eps: float = 1e-6) -> torch.Tensor:
    """(r − mean of its group) / (std of its group + ε) (arXiv 2402.03300, §4.1.2)."""
    gaps_B = _gaps(rewards_B, groups_B)
    others_B = _group_sums(torch.ones_like(gaps_B), groups_B) - 1
    std_B = (_group_sums(gaps_B.square(), groups_B) / others_B.clamp(min=1)).sqrt()
    return gaps_B / (std_B + eps)


@register("advantage", "dr_grpo")
def dr_grpo(rewards_B: torch.Tensor, groups_B: torch.Tensor) -> torch.Tensor:
    """r − mean of its group (arXiv 2503.20783): dividing by the deviation favours problems that are too easy or
    too hard."""
    return _gaps(rewards_B, groups_B)


@register("advantage", "rloo")
def rloo(rewards_B: torch.Tensor, groups_B: torch.Tensor) -> torch.Tensor:
    """r − mean of the *others* of its group (arXiv 2402.14740), which is n / (n − 1) · (r − mean of the group)."""
    gaps_B = _gaps(rewards_B, groups_B)
    count_B = _group_sums(torch.ones_like(gaps_B), groups_B)
    return gaps_B * count_B / (count_B - 1).clamp(min=1)


@register("advantage", "reinforce_pp")
def reinforce_pp(rewards_B: torch.Tensor, groups_B: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """(r − mean of the batch) / (std of the batch + ε): REINFORCE++ (arXiv 2501.03262). Groups do not matter.

    Each trajectory counts once. For statistics over tokens, as in verl and OpenRLHF, whiten once more after spreading.
    """
    return whiten(rewards_B, eps=eps)


@register("advantage", "reinforce_pp_baseline")
def reinforce_pp_baseline(rewards_B: torch.Tensor, groups_B: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """The mean of its group subtracted, then whitened over the batch: REINFORCE++-baseline (arXiv 2501.03262)."""
    return whiten(_gaps(rewards_B, groups_B), eps=eps)


def _gaps(rewards_B: torch.Tensor, groups_B: torch.Tensor) -> torch.Tensor:
    rewards_B = at_least_fp32(rewards_B)
    count_B = _group_sums(torch.ones_like(rewards_B), groups_B)
    # In fp64 n·r is exact for an r of fp32, so equal rewards have gaps of 0, not of rounding over ε.
    return (rewards_B - _group_sums(rewards_B.double(), groups_B) / count_B).to(rewards_B.dtype)


def _group_sums(x_B: torch.Tensor, groups_B: torch.Tensor) -> torch.Tensor:
    """The sum over its group for each trajectory, [B]."""
    _, index_B, counts_G = groups_B.unique(return_inverse=True, return_counts=True)
    return sums(x_B[index_B.argsort(stable=True)], counts_G)[index_B]
