"""Losses per token; `aggregation` says how they are summed. Kind "policy_loss":

    loss(logprobs_N, old_logprobs_N, advantages_N, lengths_B, **settings) → (loss_N, metrics)

`logprobs_N` carry the gradient; `old_logprobs_N` are those of the policy at the centre of the clip, of the same
distribution (temperature and the rest). ρ = exp(logprob − old logprob). A micro-batch holds whole trajectories. Metrics
are [N], without gradient, to be averaged over tokens: `ratio`; `clip_fraction`, 1 where the clip decided; `kl_old`, the
k3 estimate of KL(π_old ‖ π).
"""

from __future__ import annotations

import math

import torch

from retool.objectives.divergence import bounded_exp, k3, log_ratio
from retool.objectives.ragged import at_least_fp32, means, spread
from retool.objectives.registry import register

LossAndMetrics = tuple[torch.Tensor, dict[str, torch.Tensor]]


@register("policy_loss", "ppo_clip")
def ppo_clip(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> LossAndMetrics:
    """PPO's clipped objective (arXiv 1707.06347, eq. 7): −min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high) A).

    Two bounds: "clip higher" of DAPO (arXiv 2503.14476, eq. 10). With `dual_clip`, c > 1, the loss of tokens with A < 0
    ends at −cA (arXiv 1912.09729): a token that has become much likelier though it is bad cannot throw the update.
    """
    ratio_N = bounded_exp(log_ratio(logprobs_N, old_logprobs_N))
    loss_N, clipped_N = _clip(ratio_N, advantages_N, clip_low, clip_high)
    if dual_clip is not None:
        ceiling_N = torch.where(advantages_N < 0, -dual_clip * advantages_N, math.inf)
        clipped_N = clipped_N | (loss_N > ceiling_N)
        loss_N = torch.minimum(loss_N, ceiling_N)
    return loss_N, _metrics(ratio_N, clipped_N, logprobs_N, old_logprobs_N)


@register("policy_loss", "gspo")
def gspo(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> LossAndMetrics:
    """PPO's clip on the ratio of the whole sequence (GSPO, arXiv 2507.18071, §4.1; defaults: §5.1).

    s = exp(mean_t log ρ_t) is one number per trajectory. In the token form (GSPO-token, §4.3) each token has s by value
    and a gradient of its own: sg[s] · π_t / sg[π_t]. With the weights of `aggregation.sequence_mean`, value and
    gradient are those of GSPO; advantages may differ between tokens.
    """
    gap_N = log_ratio(logprobs_N, old_logprobs_N)
    level_N = spread(means(gap_N.detach(), lengths_B), lengths_B)
    own_N = at_least_fp32(logprobs_N)
    ratio_N = bounded_exp(level_N) * (own_N - own_N.detach()).exp()
    loss_N, clipped_N = _clip(ratio_N, advantages_N, clip_low, clip_high)
    return loss_N, _metrics(ratio_N, clipped_N, logprobs_N, old_logprobs_N)


@register("policy_loss", "cispo")
def cispo(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> LossAndMetrics:
    """−sg[clip(ρ, 1 − ε_low, 1 + ε_high)] · A · log π (CISPO, arXiv 2506.13585, eq. 4 and 5).

    The weight is clipped and not the update: every token keeps a gradient. By default there is no lower bound, as in
    the paper, and no weight above 5 (TRL's `epsilon_high=5`, which names the bound itself).
    """
    ratio_N = bounded_exp(log_ratio(logprobs_N, old_logprobs_N)).detach()
    weight_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_N = -weight_N * advantages_N * at_least_fp32(logprobs_N)
    return loss_N, _metrics(ratio_N, weight_N != ratio_N, logprobs_N, old_logprobs_N)


@register("policy_loss", "reinforce")
def reinforce(
    logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor, advantages_N: torch.Tensor, lengths_B: torch.Tensor
) -> LossAndMetrics:
    """−sg[ρ] · A · log π: the policy gradient, with nothing clipped.

    In the first update on a batch ρ is 1 and this is REINFORCE; in later ones the weight keeps the gradient that of the
    unclipped surrogate −ρA. Its variance is unbounded: `off_policy` truncates or masks it, `cispo` clips it.
    """
    return cispo(logprobs_N, old_logprobs_N, advantages_N, lengths_B, clip_low=1.0, clip_high=math.inf)


def _clip(
    ratio_N: torch.Tensor, advantages_N: torch.Tensor, low: float, high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pessimistic of the two losses, and where it is the clipped one."""
    loss_N = -ratio_N * advantages_N
    clipped_N = -ratio_N.clamp(1.0 - low, 1.0 + high) * advantages_N
    return torch.maximum(loss_N, clipped_N), clipped_N > loss_N


def _metrics(
    ratio_N: torch.Tensor, clipped_N: torch.Tensor, logprobs_N: torch.Tensor, old_logprobs_N: torch.Tensor
) -> dict[str, torch.Tensor]:
    kl_N = k3(old_logprobs_N.detach(), logprobs_N.detach())
    return {"ratio": ratio_N.detach(), "clip_fraction": clipped_N.to(ratio_N.dtype), "kl_old": kl_N}


def value_clip(
    values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, clip: float | None = 0.2
) -> torch.Tensor:
    """The critic's squared error, pessimistic about moves of more than `clip` since the rollout: ½ max(e², e_clip²),
    [N] (PPO as OpenAI released it; studied in arXiv 2005.12729). None: ½ e²."""
    error_N = (values_N - returns_N).square()
    if clip is not None:
        near_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        error_N = torch.maximum(error_N, (near_N - returns_N).square())
    return 0.5 * error_N


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """1 − Var(returns − values) / Var(returns): 1 is a perfect critic, 0 one that knows the mean only. 0 where the
    returns do not vary by more than the rounding of fp32."""
    values_N, returns_N = values_N.double(), returns_N.double()
    if returns_N.numel() < 2 or (variance := returns_N.var()) < 1e-12 * (1.0 + returns_N.square().mean()):
        return 0.0
    return float(1.0 - (returns_N - values_N).var() / variance)
