"""Importance weights where tokens were drawn by another policy than the one that learns from them: an inference engine
with other kernels, or weights of some updates ago. Kind "correction":

    correct(logprobs_N, behaviour_logprobs_N, lengths_B, **settings) → (weights_N, metrics)

`logprobs_N` are the learner's, `behaviour_logprobs_N` what the sampler recorded. Weights [N] carry no gradient and
multiply the loss per token. `level` says whose ratio it is: "token", ρ_t; "sequence", Π_t ρ_t, the unbiased one, whose
variance grows with length; "geometric", (Π_t ρ_t)^(1/l), which stays comparable between lengths. Metrics are scalars
over the N tokens, or over trajectories at the other levels: call it once for a batch.

Decoupled PPO (arXiv 2110.00641; AReaL, arXiv 2505.24298) keeps π_proximal, the learner's before the first update of the
step, as the centre of the clip, and corrects for the behaviour policy apart:
−(π_prox / π_behaviour) · min(ρA, clip(ρ) A) with ρ = π / π_prox, which is

    loss_N, _ = ppo_clip(logprobs_N, proximal_N, advantages_N, lengths_B)
    weights_N, _ = truncated(proximal_N, behaviour_N, lengths_B)
    loss_N = weights_N * loss_N
"""

from __future__ import annotations

import torch

from retool.errors import UsageError
from retool.objectives.divergence import bounded_exp, log_ratio
from retool.objectives.ragged import means, spread, sums
from retool.objectives.registry import register

WeightsAndMetrics = tuple[torch.Tensor, dict[str, torch.Tensor]]


@register("correction", "truncated")
@torch.no_grad()
def truncated(
    logprobs_N: torch.Tensor,
    behaviour_logprobs_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    level: str = "token",
    cap: float = 2.0,
) -> WeightsAndMetrics:
    """min(ρ, cap): truncated importance sampling (TIS; V-trace's ρ̄, arXiv 1802.01561). Bounded variance for some bias.

    Metrics: `truncated`, the share above the cap, and `effective_sample_size` (of the weights; Σw)² / n Σw², 1 at best.
    """
    ratio_N, share_N = _ratio(logprobs_N, behaviour_logprobs_N, lengths_B, level)
    weights_N = ratio_N.clamp(max=cap)
    return weights_N, {"truncated": _mean(ratio_N > cap, share_N)} | _sample_size(weights_N, share_N)


@register("correction", "masked")
@torch.no_grad()
def masked(
    logprobs_N: torch.Tensor,
    behaviour_logprobs_N: torch.Tensor,
    lengths_B: torch.Tensor,
    *,
    level: str = "sequence",
    low: float = 0.5,
    high: float = 2.0,
    weighted: bool = True,
) -> WeightsAndMetrics:
    """ρ where low ≤ ρ ≤ high, else 0: masked importance sampling (MIS; per token: IcePop, arXiv 2510.18855).

    With `weighted=False` 1 where it is kept: rejection, to be multiplied with weights of another level, such as a
    geometric mask of [0.99, 1.01] with `truncated` per token. Metrics: `masked`, the share left out, and
    `effective_sample_size`. Denominators of `aggregation` count what is masked too.
    """
    ratio_N, share_N = _ratio(logprobs_N, behaviour_logprobs_N, lengths_B, level)
    kept_N = (ratio_N >= low) & (ratio_N <= high)
    weights_N = torch.where(kept_N, ratio_N if weighted else 1.0, torch.zeros_like(ratio_N))
    return weights_N, {"masked": _mean(~kept_N, share_N)} | _sample_size(weights_N, share_N)


def staleness(version_now: int, versions_N: torch.Tensor) -> torch.Tensor:
    """How many updates of the weights ago each token was written, [N] (`Span.version`)."""
    return version_now - versions_N


def _ratio(
    logprobs_N: torch.Tensor, behaviour_logprobs_N: torch.Tensor, lengths_B: torch.Tensor, level: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token's ratio, and what part of a sample the token is: 1, or 1/l where its trajectory is the sample."""
    gap_N = log_ratio(logprobs_N, behaviour_logprobs_N)
    if level == "token":
        return bounded_exp(gap_N), torch.ones_like(gap_N)
    if level not in ("sequence", "geometric"):
        raise UsageError(f"unknown level {level!r} of importance weights: expected token or sequence or geometric")
    pooled_B = sums(gap_N, lengths_B) if level == "sequence" else means(gap_N, lengths_B)
    return bounded_exp(spread(pooled_B, lengths_B)), spread(1.0 / lengths_B.clamp(min=1).to(gap_N.dtype), lengths_B)


def _mean(x_N: torch.Tensor, share_N: torch.Tensor) -> torch.Tensor:
    return (share_N * x_N).sum() / share_N.sum().clamp(min=torch.finfo(share_N.dtype).tiny)


def _sample_size(weights_N: torch.Tensor, share_N: torch.Tensor) -> dict[str, torch.Tensor]:
    second = _mean(weights_N.square(), share_N).clamp(min=torch.finfo(share_N.dtype).tiny)
    return {"effective_sample_size": _mean(weights_N, share_N).square() / second}
