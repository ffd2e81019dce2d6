"""The KV cache: one row a trajectory, allocated once, written in place, never concatenated; and attention over it.

Suffixes: N rows that take part in a step, R rows of a read, C rows of all reads, H key/value heads, G query heads for
each of them, Q new tokens of a row, S cache positions, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.nn import functional
from transformers import AttentionInterface, Cache, PreTrainedConfig, PreTrainedModel

from retool.sampling.stretches import Read, cells

_ATTENTION = "retool_rows"
_LEAST = -1e30  # added to the scores of what a token must not see; finite, so that no row can become NaN by it


class RowCache(Cache):
    """Keys and values of `rows` trajectories of at most `capacity` tokens each, for a transformers model.

    Before a forward pass `aim` says which rows take part and where their new tokens go; the model then calls `update`
    and `_attend_to_rows` once a layer. Position `capacity` is a scratch cell: rows that take part in a step only to
    keep its shape write there, and nobody reads it. A row has `cells` positions, these and what fills up its memory.
    """

    def __init__(self, config: PreTrainedConfig, rows: int, capacity: int, device: torch.device, dtype: torch.dtype):
        super().__init__(layers=[])
        text = config.get_text_config()
        layers, heads, size = text.num_hidden_layers, *_heads(text)
        self.cells = cells(capacity, dtype.itemsize)
        shape = (layers, rows, heads, self.cells, size)
        self.values_LRHSD = torch.zeros(shape, device=device, dtype=dtype)  # finite wherever a step may read
        if device.type == "cpu":  # where scores are summed up twice as fast from keys that lie position by position
            keys_LRHDS = torch.zeros((*shape[:3], size, self.cells), dtype=dtype)
            self.keys_LRHSD = keys_LRHDS.transpose(-1, -2)
        else:
            self.keys_LRHSD = torch.zeros_like(self.values_LRHSD)
        self.rows = rows
        self._windows = [_window(text, layer) for layer in range(layers)]
        self._reads: Sequence[Read] = ()
        self._biases: dict[int | None, list[torch.Tensor]] = {}

    def aim(self, rows_N: torch.Tensor, positions_NQ: torch.Tensor, reads: Sequence[Read]) -> None:
        """The next forward pass is for `rows_N`, whose new tokens go to `positions_NQ`; `reads` say where they look."""
        self._rows_N1, self._positions_NQ, self._reads = rows_N[:, None], positions_NQ, reads
        self._places_N, self._sizes = None, [read.stop - read.start for read in reads]
        if sum(self._sizes) > len(rows_N):
            rows, places, offset = rows_N.tolist(), [], 0
            for read, size in zip(reads, self._sizes, strict=True):
                places += [row - read.start + offset for row in rows[read.first : read.last]]
                offset += size
            self._places_N = torch.tensor(places, device=rows_N.device)
        positions_CQ = self._spread(positions_NQ)
        self._biases = {window: self._make_biases(positions_CQ, window) for window in {*self._windows}}

    def _spread(self, part_N: torch.Tensor) -> torch.Tensor:
        """What belongs to the step's rows, laid out like the rows that the reads cover, one read after the other: 0 for
        those that take no part."""
        if self._places_N is None:
            return part_N
        return part_N.new_zeros((sum(self._sizes), *part_N.shape[1:])).index_copy_(0, self._places_N, part_N)

    def _make_biases(self, positions_CQ: torch.Tensor, window: int | None) -> list[torch.Tensor]:
        """What to add to the scores of each read, [R, 1, 1, Q, S]: 0 where a token may look, else very little."""
        biases = []
        for read, positions_RQ in zip(self._reads, positions_CQ.split(self._sizes), strict=True):
            seen_S = torch.arange(read.span, device=positions_RQ.device)
            hidden_RQS = seen_S > positions_RQ[..., None]
            if window is not None:
                hidden_RQS |= seen_S <= positions_RQ[..., None] - window
            bias_RQS = torch.zeros(hidden_RQS.shape, device=hidden_RQS.device, dtype=self.keys_LRHSD.dtype)
            biases.append(bias_RQS.masked_fill_(hidden_RQS, _LEAST)[:, None, None])
        return biases

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values [N, H, Q, D]; all that the rows may look at is for the attention to find."""
        self.keys_LRHSD[layer_idx][self._rows_N1, :, self._positions_NQ] = key_states.transpose(1, 2)
        self.values_LRHSD[layer_idx][self._rows_N1, :, self._positions_NQ] = value_states.transpose(1, 2)
        return key_states, value_states

    def attend(
        self, query_NHQD: torch.Tensor, layer: int, scale: float, softcap: float | None, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention of the new tokens [N, H·G, Q, D] to all of their rows; returns [N, Q, H·G, D].

        The query heads that share a key head are taken together as if they were more tokens: each key is read once.
        """
        keys_RHSD, values_RHSD = self.keys_LRHSD[layer], self.values_LRHSD[layer]
        heads, size = keys_RHSD.shape[1], keys_RHSD.shape[3]
        n, all_heads, new, _ = query_NHQD.shape
        groups = all_heads // heads
        query_CHXD = self._spread((query_NHQD * scale).reshape(n, heads, groups * new, size))
        biases, parts = self._biases[self._windows[layer]], []
        for read, query, bias in zip(self._reads, query_CHXD.split(self._sizes), biases, strict=True):
            rows = slice(read.start, read.stop)
            keys, values = keys_RHSD[rows, :, : read.span], values_RHSD[rows, :, : read.span]
            if query.is_cuda and softcap is None and sinks is None:
                mask = bias.expand(-1, heads, groups, -1, -1).flatten(2, 3)
                parts.append(functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=1.0))
            else:
                parts.append(_weighted_sum(query, keys, values, bias, softcap, sinks))
        out_CHXD = parts[0] if len(parts) == 1 else torch.cat(parts)
        out_NHXD = out_CHXD if self._places_N is None else out_CHXD[self._places_N]
        return out_NHXD.view(n, all_heads, new, size).transpose(1, 2)

    def copy_prefix(self, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the first `length` keys and values of a row, [layers, H, length, D] each."""
        return self.keys_LRHSD[:, row, :, :length].clone(), self.values_LRHSD[:, row, :, :length].clone()

    def paste_prefix(self, row: int, prefix: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Put what `copy_prefix` gave at the start of a row."""
        keys_LHSD, values_LHSD = prefix
        self.keys_LRHSD[:, row, :, : keys_LHSD.shape[2]] = keys_LHSD
        self.values_LRHSD[:, row, :, : values_LHSD.shape[2]] = values_LHSD

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows have lengths of their own; positions are always given explicitly, so none is needed here."""
        return 0


def row_bytes(config: PreTrainedConfig, capacity: int, dtype: torch.dtype) -> int:
    """Bytes that a row of `capacity` tokens takes."""
    text = config.get_text_config()
    heads, size = _heads(text)
    return 2 * text.num_hidden_layers * heads * cells(capacity, dtype.itemsize) * size * dtype.itemsize


@contextmanager
def attending(model: PreTrainedModel, cache: RowCache) -> Iterator[None]:
    """Within this context the model's attention looks at `cache`; outside of it the model is as it was."""
    config = model.config.get_text_config()
    before, token = config._attn_implementation, _current.set(cache)
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before
        _current.reset(token)


_current: ContextVar[RowCache] = ContextVar("cache of the forward pass under way")


def _attend_to_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for attention (`AttentionInterface`). `key` and `value` are in the cache already."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _current.get().attend(query, module.layer_idx, scale, softcap, s_aux), None


AttentionInterface.register(_ATTENTION, _attend_to_rows)


def _weighted_sum(
    query_RHXD: torch.Tensor,
    keys_RHSD: torch.Tensor,
    values_RHSD: torch.Tensor,
    bias: torch.Tensor,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of scaled queries written out, [R, H, X, D]; X = G·Q. On a CPU faster than the fused kernel for few
    queries a row."""
    rows, heads, x, _ = query_RHXD.shape
    new = bias.shape[3]
    scores_RHXS = torch.matmul(query_RHXD, keys_RHSD.transpose(-1, -2))
    if softcap is not None:
        scores_RHXS = (scores_RHXS / softcap).tanh_().mul_(softcap)
    scores_RHXS.view(rows, heads, x // new, new, -1).add_(bias)
    if sinks is not None:  # a score for nothing at all, one a query head
        sink = sinks.view(1, heads, -1, 1, 1).expand(rows, -1, -1, new, 1).reshape(rows, heads, x, 1)
        weights = torch.cat([scores_RHXS, sink.to(scores_RHXS.dtype)], -1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores_RHXS.softmax(-1, dtype=torch.float32)
    return weights.to(values_RHSD.dtype) @ values_RHSD


def _heads(text: PreTrainedConfig) -> tuple[int, int]:
    """Number of key/value heads, and their size."""
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return heads, getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _window(text: PreTrainedConfig, layer: int) -> int | None:
    """How many positions a token of this layer sees, itself included; None: all before it."""
    window, kinds = getattr(text, "sliding_window", None), getattr(text, "layer_types", None)
    if not window or (kinds and kinds[layer] != "sliding_attention"):
        return None
    return window
