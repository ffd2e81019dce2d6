"""Causal attention in fp32 on a CPU, its products through oneDNN (`products`), forward and backward.

PyTorch's fused kernel multiplies in small tiles through MKL. Here a block of queries, those of all heads that share
keys, is one product with every key that it sees. The scores of a block are computed again in the backward pass, so
nothing of the size of length times length is kept.

Suffixes: H query heads, K key heads, T tokens of the row, D head size, V size of a value, Q queries of a block in all
heads of a group, S keys that they see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from retool.kernels.products import is_supported, multiply

_BLOCK = 256  # queries of one head; 128 to 512 take the same time
_LEAST_SIZE, _LEAST_LENGTH, _LEAST_QUERIES = 64, 128, 384  # below, the fused kernel is as fast or faster
_LATER_QS = torch.full((_BLOCK, _BLOCK), -torch.inf, device="cpu").triu(1)


def is_faster(query: torch.Tensor, key: torch.Tensor, length: int) -> bool:
    """Whether `causal_attention` is for these tensors, [1, H, T, D], and a sequence of this length."""
    heads, size = query.shape[1], query.shape[-1]
    large = size >= _LEAST_SIZE and length >= _LEAST_LENGTH and length * heads // key.shape[1] >= _LEAST_QUERIES
    return large and is_supported(query) and is_supported(key) and not torch.is_autocast_enabled("cpu")


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scale: float
) -> torch.Tensor:
    """Attention within each of the sequences that lie end to end in a row.

    `query` [1, H, T, D], `key` [1, K, T, D], `value` [1, K, T, V], fp32 on the CPU in any layout; H is a multiple of K.
    Returns [1, T, H, V]. Differentiable once.
    """
    return _CausalAttention.apply(query, key, value, tuple(lengths), scale)


class _Block(NamedTuple):
    """Queries of one sequence in the heads that share keys."""

    group: int
    heads: slice
    queries: slice
    seen: slice


def _blocks(heads: int, groups: int, lengths: Sequence[int]) -> Iterator[_Block]:
    shared, begin = heads // groups, 0
    for length in lengths:
        for group in range(groups):
            for first in range(begin, begin + length, _BLOCK):
                end = min(first + _BLOCK, begin + length)
                yield _Block(group, slice(group * shared, (group + 1) * shared), slice(first, end), slice(begin, end))
        begin += length


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: tuple[int, ...],
        scale: float,
    ) -> torch.Tensor:
        query_HTD, keys_KTD, values_KTV = query[0], (key[0] * scale).contiguous(), value[0].contiguous()
        result_THV = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        for block in _blocks(len(query_HTD), len(keys_KTD), lengths):
            weights_QS = _weights(_rows(query_HTD, block), keys_KTD, block)
            found_QV = multiply(weights_QS, values_KTV[block.group, block.seen].t())
            _put(found_QV, result_THV.transpose(0, 1), block)
        ctx.save_for_backward(query, keys_KTD, values_KTV)
        ctx.lengths, ctx.scale = lengths, scale
        return result_THV[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, keys_KTD, values_KTV = ctx.saved_tensors
        query_HTD, grad_HTV = query[0], grad[0].transpose(0, 1)
        grad_query = torch.empty_like(query)
        grad_key_KDT = torch.zeros_like(keys_KTD.transpose(1, 2), memory_format=torch.contiguous_format)
        grad_value_KVT = torch.zeros_like(values_KTV.transpose(1, 2), memory_format=torch.contiguous_format)
        for block in _blocks(len(query_HTD), len(keys_KTD), ctx.lengths):
            query_QD, grad_QV = _rows(query_HTD, block), _rows(grad_HTV, block)
            weights_QS = _weights(query_QD, keys_KTD, block)
            grad_weights_QS = multiply(grad_QV, values_KTV[block.group, block.seen])
            grad_scores_QS = torch._softmax_backward_data(grad_weights_QS, weights_QS, -1, torch.float32)
            _put(multiply(grad_scores_QS, keys_KTD[block.group, block.seen].t()), grad_query[0], block)
            grad_key_KDT[block.group, :, block.seen] += multiply(query_QD.t(), grad_scores_QS.t())
            grad_value_KVT[block.group, :, block.seen] += multiply(grad_QV.t(), weights_QS.t())
        grad_key = grad_key_KDT.mul_(ctx.scale).transpose(1, 2)[None]
        return grad_query, grad_key, grad_value_KVT.transpose(1, 2)[None], None, None


def _rows(part_HTD: torch.Tensor, block: _Block) -> torch.Tensor:
    """What the queries of a block have of it, [Q, D], by head and place."""
    return part_HTD[block.heads, block.queries].reshape(-1, part_HTD.shape[-1])


def _put(rows_QD: torch.Tensor, whole_HTD: torch.Tensor, block: _Block) -> None:
    place = whole_HTD[block.heads, block.queries]
    place.copy_(rows_QD.view(place.shape))


def _weights(query_QD: torch.Tensor, keys_KTD: torch.Tensor, block: _Block) -> torch.Tensor:
    """How much each query takes of each key, [Q, S]: the same numbers in the forward pass and again in the backward."""
    scores_QS = multiply(query_QD, keys_KTD[block.group, block.seen])
    count = block.queries.stop - block.queries.start
    scores_QS.view(-1, count, scores_QS.shape[-1])[..., -count:].add_(_LATER_QS[:count, :count])
    return scores_QS.softmax(-1)
