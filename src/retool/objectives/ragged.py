"""Trajectories of different lengths laid end to end: [N] tokens, cut into B trajectories by `lengths_B`."""

from __future__ import annotations

import torch


def at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    """The tensor in fp32, or as it is where it is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def spread(x_B: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """[B] → [N]: each trajectory's value at each of its tokens."""
    return x_B.repeat_interleave(lengths_B)


def pad(x_N: torch.Tensor, lengths_B: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """[N] → [B, T], T the longest length, with `fill` after each trajectory's end."""
    mask_BT = _mask(lengths_B)
    return x_N.new_full(mask_BT.shape, fill).masked_scatter(mask_BT, x_N)


def unpad(x_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """[B, T] → [N]: the inverse of `pad`."""
    return x_BT[_mask(lengths_B)]


def sums(x_N: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Each trajectory's sum, [B]; 0 where it has no token. No atomics: the same bits every time, on CUDA too."""
    x_N = at_least_fp32(x_N)
    return pad(x_N.double(), lengths_B).sum(1).to(x_N.dtype)


def means(x_N: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Each trajectory's mean, [B]; 0 where it has no token."""
    return sums(x_N, lengths_B) / lengths_B.clamp(min=1)


def tokens_after(lengths_B: torch.Tensor) -> torch.Tensor:
    """How many tokens of its own trajectory follow each token, [N] int64; 0 marks the last ones."""
    ends_N = spread(lengths_B.cumsum(0), lengths_B)
    return ends_N - 1 - torch.arange(len(ends_N), device=lengths_B.device)


def _mask(lengths_B: torch.Tensor) -> torch.Tensor:
    longest = int(lengths_B.max()) if len(lengths_B) else 0
    return torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
