"""The KV cache: one row a trajectory, allocated once, written in place, never concatenated.

Suffixes: R rows of the step, H key/value heads, Q new tokens, S cache positions, D head size.
"""

from __future__ import annotations

import torch
from transformers import Cache, PreTrainedConfig


class SlotCache(Cache):
    """Keys and values of `rows` trajectories of at most `capacity` tokens each, for a transformers model.

    Before a forward pass `aim` says which rows take part, where their new tokens go and how far back they look;
    the model then calls `update` once a layer. Position `capacity` is a scratch cell: rows that take part in a step
    only to keep its shape write there, and nobody reads it.
    """

    def __init__(self, config: PreTrainedConfig, rows: int, capacity: int, device: torch.device, dtype: torch.dtype):
        super().__init__(layers=[])
        text = config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = (text.num_hidden_layers, rows, heads, capacity + 1, head_dim)
        self.keys_LRHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LRHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self._rows = slice(0, rows)
        self._row_index_R1 = torch.arange(rows, device=device).unsqueeze(1)
        self._positions_RQ: torch.Tensor | None = None
        self._span = capacity

    def aim(self, rows: slice, positions_RQ: torch.Tensor, span: int) -> None:
        """The next forward pass writes rows `rows` at `positions_RQ` and reads the first `span` positions."""
        self._rows, self._positions_RQ, self._span = rows, positions_RQ, span

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values [R, H, Q, D]; return all that the rows may look at [R, H, span, D]."""
        keys_RHSD, values_RHSD = self.keys_LRHSD[layer_idx, self._rows], self.values_LRHSD[layer_idx, self._rows]
        rows_R1 = self._row_index_R1[: keys_RHSD.shape[0]]
        keys_RHSD[rows_R1, :, self._positions_RQ] = key_states.transpose(1, 2)
        values_RHSD[rows_R1, :, self._positions_RQ] = value_states.transpose(1, 2)
        return keys_RHSD[:, :, : self._span], values_RHSD[:, :, : self._span]

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
