"""From logits to a token: the transformation of the distribution, and the draw.

The learner applies the same transformation when it computes its own log-probabilities, so that a PPO ratio compares
like with like. Logits of NaN or +inf come out as log-probabilities of NaN. Suffixes: N rows, V vocabulary.
"""

from __future__ import annotations

import torch

from retool.config.schema import SamplingConfig


def transform_logits(
    logits_NV: torch.Tensor, config: SamplingConfig, sampled_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits of the distribution that is sampled from: temperature, then top-k, top-p and min-p (-inf: left out).

    A token tied with the last kept one is kept too. Temperature 0 is greedy: all but one token are left out.

    `sampled_N`, for the learner, are tokens that were drawn and so were kept then. They are kept now, too, though the
    weights have changed since, or the last bits of a logit differ: where one crosses the edge of what is kept, its
    log-probability goes on without a jump instead of falling to -inf.
    """
    logits_NV = logits_NV.float()
    if config.temperature not in (0.0, 1.0):
        logits_NV = logits_NV / config.temperature
    kept_NV = _truncate(logits_NV, config)
    if sampled_N is None or kept_NV is logits_NV:
        return kept_NV
    sampled_N1 = sampled_N.unsqueeze(-1)
    return kept_NV.scatter(-1, sampled_N1, logits_NV.gather(-1, sampled_N1))


def _truncate(logits_NV: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """-inf for what greedy choice, top-k, top-p and min-p leave out; the same tensor where all is kept."""
    if config.temperature == 0.0:
        best_N1 = logits_NV.argmax(-1, keepdim=True)
        return torch.full_like(logits_NV, -torch.inf).scatter(-1, best_N1, logits_NV.gather(-1, best_N1))
    if 0 < config.top_k < logits_NV.shape[-1]:
        kth_N1 = logits_NV.topk(config.top_k, dim=-1).values[..., -1:]
        logits_NV = logits_NV.masked_fill(logits_NV < kth_N1, -torch.inf)
    if config.top_p < 1.0:
        logits_NV = logits_NV.masked_fill(logits_NV < _least_kept(logits_NV, config.top_p), -torch.inf)
    if config.min_p > 0.0:
        best_N1 = logits_NV.amax(-1, keepdim=True)
        logits_NV = logits_NV.masked_fill(logits_NV < best_N1 + torch.tensor(config.min_p).log(), -torch.inf)
    return logits_NV


def _least_kept(logits_NV: torch.Tensor, top_p: float, first: int = 1024) -> torch.Tensor:
    """The logit of the last token that top-p keeps, [..., 1].

    Sorting a whole vocabulary costs more than a decode step of a small model; the `first` tokens nearly always hold the
    mass, and only rows where they do not are sorted in full.
    """
    best_NK = logits_NV.topk(min(first, logits_NV.shape[-1]), dim=-1).values
    probs_NK = (best_NK - logits_NV.logsumexp(-1, keepdim=True)).exp()
    kept_NK = probs_NK.cumsum(-1) - probs_NK < top_p  # the mass before a token has not reached top_p yet
    least_N1 = best_NK.masked_fill(~kept_NK, torch.inf).amin(-1, keepdim=True)
    short_N = kept_NK[..., -1] & (best_NK.shape[-1] < logits_NV.shape[-1])
    if short_N.any():
        least_N1[short_N] = _least_kept(logits_NV[short_N], top_p, logits_NV.shape[-1])
    return least_N1


def draw(logits_NV: torch.Tensor, uniforms_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inversion of the cumulative distribution, and its log-probability.

    `uniforms_N` are float64 in [0, 1): one number a row, where `torch.multinomial` would draw one per vocabulary entry.
    Returns ids [N] and log-probabilities [N] (float32).
    """
    logprobs_NV = logits_NV.float().log_softmax(-1)
    cumulative_NV = logprobs_NV.exp().cumsum(-1, dtype=torch.float64)
    threshold_N1 = uniforms_N.unsqueeze(-1) * cumulative_NV[:, -1:]
    ids_N1 = torch.searchsorted(cumulative_NV, threshold_N1, right=True).clamp_max(logits_NV.shape[-1] - 1)
    return ids_N1.squeeze(-1), logprobs_NV.gather(-1, ids_N1).squeeze(-1)
