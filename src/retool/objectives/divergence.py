"""How far two policies are apart, token by token, seen through the tokens that one of them drew.

Estimators of KL(π ‖ π_ref) from tokens drawn from π (J. Schulman, "Approximating KL divergence", 2020), kind "kl". With
d = log π − log π_ref, per token and in nats; which one to use depends on what is done with it:

    ====  ==============  =========================  =====================================================
    name  value           E[value] is the KL         E[gradient] as a loss is
    ====  ==============  =========================  =====================================================
    k1    d               yes, high variance         0: useless as a loss; fit for a penalty in the reward
    k2    ½ d²            no, biased                 ∇ KL(π ‖ π_ref): the one for a loss
    k3    e^(−d) − 1 + d  yes, low variance, never   ∇ KL(π_ref ‖ π), the other direction: fit for a metric;
                          negative                   GRPO's loss (arXiv 2402.03300, eq. 4) uses it nevertheless
    ====  ==============  =========================  =====================================================
"""

from __future__ import annotations

import torch

from retool.objectives.ragged import at_least_fp32
from retool.objectives.registry import register

LOG_RATIO_LIMIT = 20.0  # beyond e^±20 a ratio says only that something is broken; e^89 would be infinite in fp32


def log_ratio(logprobs_N: torch.Tensor, other_logprobs_N: torch.Tensor) -> torch.Tensor:
    """log π − log π_other, [N], in fp32 at least."""
    return at_least_fp32(logprobs_N) - at_least_fp32(other_logprobs_N)


def bounded_exp(gap: torch.Tensor) -> torch.Tensor:
    """The ratio, between e^−20 and e^20, so that ratio · 0 is 0 and not NaN. No gradient flows beyond the limits."""
    return gap.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


@register("kl", "k1")
def k1(logprobs_N: torch.Tensor, reference_logprobs_N: torch.Tensor) -> torch.Tensor:
    """d, [N]."""
    return log_ratio(logprobs_N, reference_logprobs_N)


@register("kl", "k2")
def k2(logprobs_N: torch.Tensor, reference_logprobs_N: torch.Tensor) -> torch.Tensor:
    """½ d², [N]."""
    return 0.5 * log_ratio(logprobs_N, reference_logprobs_N).square()


@register("kl", "k3")
def k3(logprobs_N: torch.Tensor, reference_logprobs_N: torch.Tensor) -> torch.Tensor:
    """e^(−d) − 1 + d, [N]."""
    gap_N = log_ratio(logprobs_N, reference_logprobs_N)
    return (-gap_N).clamp(
        -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT
    ).expm1() + gap_N  # exp(x) − 1 would lose small d to rounding
