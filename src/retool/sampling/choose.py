"""From logits to a token: the transformation of the distribution, and the draw.

The learner applies the same transformation when it computes its own log-probabilities, so that a PPO ratio compares
like with like. Logits of NaN or +inf come out as log-probabilities of NaN. Suffixes: N rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from retool.config.sampling import SamplingConfig

_BLOCK = 128
_LARGE_VOCABULARY = 4096


def transform_logits(
    logits_NV: torch.Tensor, config: SamplingConfig, sampled_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits of the distribution that is sampled from: temperature, then top-k, top-p and min-p (-inf: left out).

    The same tensor where that is the model's own distribution. A token tied with the last kept one is kept too.
    Temperature 0 is greedy: all but one token are left out.

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
    probs_NK = (best_NK - log_total(logits_NV)).exp()
    kept_NK = probs_NK.cumsum(-1) - probs_NK < top_p  # the mass before a token has not reached top_p yet
    least_N1 = best_NK.masked_fill(~kept_NK, torch.inf).amin(-1, keepdim=True)
    short_N = kept_NK[..., -1] & (best_NK.shape[-1] < logits_NV.shape[-1])
    if short_N.any():
        least_N1[short_N] = _least_kept(logits_NV[short_N], top_p, logits_NV.shape[-1])
    return least_N1


def log_total(logits_NV: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum of exponentials of each row, [N, 1] (float32).

    `torch.logsumexp` shares the sum of a single long row out among threads, and that of many rows not, so the last bit
    would depend on N. Here short blocks are summed up, and then their sums in double precision.
    """
    best_N1 = logits_NV.amax(-1, keepdim=True)
    sums_NB = _in_blocks((logits_NV - best_N1).exp_()).sum(-1)
    return (sums_NB.double().sum(-1, keepdim=True).log() + best_N1).float()


def draw(logits_NV: torch.Tensor, uniforms_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inversion of the cumulative distribution, and its log-probability.

    `uniforms_N` are float64 in [0, 1): one number a row, where `torch.multinomial` would draw one per vocabulary entry.
    In a large vocabulary the block of tokens is found first in which the cumulative sum passes the number, so that only
    a few hundred values a row are summed up in double precision. Returns ids [N] and log-probabilities [N] (float32).
    `logits_NV` is float32, and overwritten.
    """
    vocabulary = logits_NV.shape[-1]
    weights_NV = logits_NV.sub_(logits_NV.amax(-1, keepdim=True)).exp_()
    if vocabulary < _LARGE_VOCABULARY:
        ids_N1, cumulative_NV, _ = _invert(weights_NV, uniforms_N[:, None])
        total_N1 = cumulative_NV[:, -1:]
    else:
        weights_NBK = _in_blocks(weights_NV)
        sums_NB = weights_NBK.sum(-1)
        block_N1, cumulative_NB, target_N1 = _invert(sums_NB, uniforms_N[:, None])
        total_N1 = cumulative_NB[:, -1:]
        into_N1 = 1.0 - (cumulative_NB.gather(-1, block_N1) - target_N1) / sums_NB.gather(-1, block_N1).double()
        within_NK = weights_NBK.gather(1, block_N1[..., None].expand(-1, -1, _BLOCK)).squeeze(1)
        token_N1, _, _ = _invert(within_NK, into_N1.clamp(0.0, 1.0 - 2.0**-53))
        ids_N1 = (block_N1 * _BLOCK + token_N1).clamp_max(vocabulary - 1)
    logprobs_N1 = (weights_NV.gather(-1, ids_N1).double() / total_N1).log().float()
    return ids_N1.squeeze(-1), logprobs_N1.squeeze(-1)


def _in_blocks(weights_NV: torch.Tensor) -> torch.Tensor:
    """[..., B, K], with zeros behind the vocabulary."""
    padding = -weights_NV.shape[-1] % _BLOCK
    return (functional.pad(weights_NV, (0, padding)) if padding else weights_NV).unflatten(-1, (-1, _BLOCK))


def _invert(weights_NK: torch.Tensor, share_N1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the cumulative sum of each row passes `share` (in [0, 1)) of its total: never an entry of weight 0.

    Returns the entry [N, 1], the cumulative sum, and what of it was passed; the last two in float64.
    """
    cumulative_NK = weights_NK.cumsum(-1, dtype=torch.float64)
    total_N1 = cumulative_NK[:, -1:]
    target_N1 = torch.minimum(share_N1 * total_N1, total_N1.nextafter(torch.zeros_like(total_N1)))
    entry_N1 = torch.searchsorted(cumulative_NK, target_N1, right=True).clamp_max_(weights_NK.shape[-1] - 1)
    return entry_N1, cumulative_NK, target_N1
