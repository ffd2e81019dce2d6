"""Attention over sequences that lie end to end: each token sees those before it in its own sequence.

Within `packed` a model reads one row of several sequences as it would read them apart. transformers' attention
interface hands over queries, keys and values; no mask of the whole row is ever made.

On CUDA in half precision one kernel takes all sequences. On a CPU in fp32 the long ones, which lie first in a row
(`packing.pack`), go through a kernel of our own (`kernels.attention`). All others go through PyTorch's fused kernel one
by one: to pad those of like length and take them together was never faster (15 of 100 tokens or 16 of 400).

Suffixes: H heads, T tokens of the row, L of one sequence, Q of them that look, S that they see, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature
from itertools import takewhile

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from retool.kernels.attention import causal_attention, is_faster

_ATTENTION = "retool_packed"
_BLOCK = 256  # queries that are taken together where the scores are written out or a window moves along
_VARLEN_KNOWS_ALL = {"scale", "window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys()
_LARGEST_VARLEN_HEAD = 256


@dataclass(frozen=True)
class Packing:
    """Where each sequence of a row ends."""

    lengths: Sequence[int]
    device: torch.device

    @cached_property
    def borders(self) -> torch.Tensor:
        """0 and the end of each sequence, as the kernel for all of them wants it."""
        return torch.tensor([0, *self.lengths], device=self.device).cumsum(0).int()


@contextmanager
def packed(model: PreTrainedModel, packing: Packing) -> Iterator[None]:
    """Within this context the model's attention keeps the sequences of a row apart; outside of it it is as it was.

    Layers under gradient checkpointing run once more in the backward pass, when the context has been left: they enter
    it again by themselves.
    """
    config = model.config.get_text_config()
    before, token = config._attn_implementation, _current.set(packing)
    config._attn_implementation = _ATTENTION
    checkpointed = [m for m in model.modules() if "_gradient_checkpointing_func" in vars(m)]
    functions = [module._gradient_checkpointing_func for module in checkpointed]
    for module, function in zip(checkpointed, functions, strict=True):
        module._gradient_checkpointing_func = partial(_checkpoint, function, model, packing)
    try:
        yield
    finally:
        for module, function in zip(checkpointed, functions, strict=True):
            module._gradient_checkpointing_func = function
        config._attn_implementation = before
        _current.reset(token)


def _checkpoint(
    checkpoint: Callable, model: PreTrainedModel, packing: Packing, layer: Callable, *inputs: object
) -> object:
    def packed_layer(*inputs: object) -> object:
        with packed(model, packing):
            return layer(*inputs)

    return checkpoint(packed_layer, *inputs)


_current: ContextVar[Packing] = ContextVar("the row of sequences that is read")


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for attention (`AttentionInterface`): queries [1, H, T, D] → [1, T, H, D]."""
    packing = _current.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = softcap is None and s_aux is None
    if plain and not dropout and _takes_all_at_once(query, value):
        return _all_at_once(query, key, value, packing, scale, sliding_window), None
    long = _long_ones(query, key, packing, sliding_window) if plain and not dropout else []
    if len(long) == len(packing.lengths):
        return causal_attention(query, key, value, long, scale), None
    if query.is_cuda:  # whose fused kernels for fp32 want as many key heads as query heads
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sizes = [sum(long), *packing.lengths[len(long) :]]
    first, *sequences = zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)
    parts = [causal_attention(*first, long, scale)] if long else []
    for sequence in sequences:
        if plain:
            part = _fused(*sequence, scale, sliding_window, dropout)
        else:
            part = _written_out(*sequence, scale, sliding_window, dropout, softcap, s_aux)
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, 1), None


AttentionInterface.register(_ATTENTION, _attend)


def _long_ones(query: torch.Tensor, key: torch.Tensor, packing: Packing, window: int | None) -> list[int]:
    """Lengths of the sequences at the row's beginning that our own kernel takes."""
    return list(takewhile(lambda n: is_faster(query, key, n) and (window is None or window >= n), packing.lengths))


def _takes_all_at_once(query: torch.Tensor, value: torch.Tensor) -> bool:
    size = query.shape[-1]
    return (
        _VARLEN_KNOWS_ALL
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and size == value.shape[-1] <= _LARGEST_VARLEN_HEAD
        and size % 8 == 0
    )


def _all_at_once(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, scale: float, window: int | None
) -> torch.Tensor:
    longest = max(packing.lengths)
    return varlen_attn(
        *(part[0].transpose(0, 1) for part in (query, key, value)),
        packing.borders,
        packing.borders,
        longest,
        longest,
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=True,
    )[None]


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None, dropout: float
) -> torch.Tensor:
    """Attention within one sequence, [1, H, L, D], by the fused kernel."""
    attend = partial(functional.scaled_dot_product_attention, dropout_p=dropout, scale=scale, enable_gqa=True)
    length = query.shape[2]
    if window is None or window >= length:
        return attend(query, key, value, is_causal=True)
    parts = []
    for queries, seen in _blocks(length, window):
        mask = ~_hidden(queries, seen, window, query.device)
        parts.append(attend(query[:, :, queries], key[:, :, seen], value[:, :, seen], attn_mask=mask))
    return torch.cat(parts, 2)


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The same where scores are soft-capped, or compete with a score for nothing at all, one a head (sinks)."""
    heads, length, size = query.shape[1:]
    grouped = (query[0] * scale).view(key.shape[1], -1, length, size)
    parts = []
    for queries, seen in _blocks(length, window):
        scores_KGQS = grouped[:, :, queries] @ key[0, :, None, seen].transpose(-1, -2)
        if softcap is not None:
            scores_KGQS = (scores_KGQS / softcap).tanh() * softcap
        hidden_QS = _hidden(queries, seen, window, query.device)
        scores_HQS = scores_KGQS.flatten(0, 1).float().masked_fill(hidden_QS, -torch.inf)
        if sinks is not None:
            sink_HQ1 = sinks.float().view(heads, 1, 1).expand(-1, scores_HQS.shape[1], 1)
            scores_HQS = torch.cat([scores_HQS, sink_HQ1], -1)
        weights_HQS = functional.dropout(scores_HQS.softmax(-1), dropout)[..., : hidden_QS.shape[1]].to(value.dtype)
        parts.append((weights_HQS.view_as(scores_KGQS) @ value[0, :, None, seen]).flatten(0, 1))
    return torch.cat(parts, 1)[None]


def _blocks(length: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """The queries of a sequence in blocks, and for each the keys that any of them sees."""
    for begin in range(0, length, _BLOCK):
        end = min(begin + _BLOCK, length)
        yield slice(begin, end), slice(0 if window is None else max(0, begin - window + 1), end)


def _hidden(queries: slice, seen: slice, window: int | None, device: torch.device) -> torch.Tensor:
    """Which of the keys each query must not see, [Q, S]."""
    query_Q1 = torch.arange(queries.start, queries.stop, device=device)[:, None]
    key_S = torch.arange(seen.start, seen.stop, device=device)
    hidden_QS = key_S > query_Q1
    return hidden_QS if window is None else hidden_QS | (key_S <= query_Q1 - window)
