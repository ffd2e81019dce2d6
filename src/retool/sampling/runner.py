"""Forward passes over rows of the KV cache: ids of rows in, logits out. Knows nothing of who asks for them, and why."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from retool.kernels.products import lay_out_for_few_rows, take_fast_products
from retool.sampling.budget import rows_held, rows_to_try
from retool.sampling.cache import RowCache, attending, row_bytes
from retool.sampling.compatibility import check_config, check_logits, rows_are_alike
from retool.sampling.graphs import GraphedForward
from retool.sampling.lean import LeanForward
from retool.sampling.scheduler import Row
from retool.sampling.stretches import Read, plan_reads, round_up

_BYTES_PER_READ = 400_000  # what a read of a layer's cache costs by itself, in bytes read in that time (2 server cores)
_ROWS_ON_CUDA = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512)  # numbers of rows that graphs are recorded for


@dataclass(slots=True)
class _Plan:
    """What decode steps have in common until a row joins or leaves, or `steps_left` steps have made one longer."""

    rows: list[Row]
    rows_N: torch.Tensor
    reads: list[Read]
    steps_left: int


class ModelRunner:
    """`model` over a cache of rows of `capacity` tokens: `rows` of them, or as many as `cache_bytes` hold, up to twice.

    In deterministic mode every step has the same shape (all rows, the whole capacity), and there are so many rows that
    a text has the same bits in each of them. A RuntimeWarning says where the machine does not allow that. Raises
    UsageError for models whose cache it cannot hold and for a budget that is too small.

    Suffixes: N rows that take part, R rows of the cache from the first on, Q new tokens of a row, V vocabulary.
    """

    def __init__(
        self, model: PreTrainedModel, *, rows: int, capacity: int, deterministic: bool, cache_bytes: int | None
    ):
        check_config(model)
        config = model.config
        self._model = model
        self._capacity = capacity
        self._deterministic = deterministic
        self.row_bytes = row_bytes(config, capacity, model.dtype)
        held = rows_held(rows, cache_bytes, self.row_bytes, capacity, deterministic)
        self._cells_per_read = _BYTES_PER_READ * config.get_text_config().num_hidden_layers * capacity // self.row_bytes
        self.cache = RowCache(config, held, capacity, model.device, model.dtype)
        self._plan: _Plan | None = None
        self._graphs = GraphedForward(self._forward_first_rows) if model.device.type == "cuda" else None
        take_fast_products(model)
        lay_out_for_few_rows(model)
        self.lean = LeanForward(model)
        check_logits(model, self.read, capacity)
        self.lean.compare(self.read, held, capacity)
        if deterministic:
            self._make_rows_alike(cache_bytes)

    def begin(self) -> None:
        """To be called when passes begin after others may have had the model: the learner leaves it in training mode,
        with dropout, and hooks or adapters may have come."""
        self._model.eval()
        self.lean.inspect()

    @torch.inference_mode()
    def read(self, rows: Sequence[Row], chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append a chunk to each of some rows of the cache. Returns the logits after the longest ones, [N, V].

        Shorter chunks are filled up with tokens that go to the scratch cell.
        """
        longest = max(map(len, chunks))
        ids = np.zeros((len(rows), longest), np.int64)
        positions = np.full((len(rows), longest), self._capacity, np.int64)
        reads = []
        for number, (row, chunk) in enumerate(zip(rows, chunks, strict=True)):
            end = row.length + len(chunk)
            ids[number, : len(chunk)], positions[number, : len(chunk)] = chunk, range(row.length, end)
            span = self.cache.cells if self._deterministic else round_up(end, self._capacity)
            reads.append(Read(row.index, row.index + 1, span, number, number + 1))
            row.length = end
        device = self._model.device
        rows_N = torch.tensor([row.index for row in rows], device=device)
        return self._forward(torch.from_numpy(ids).to(device), rows_N, torch.from_numpy(positions).to(device), reads)

    @torch.inference_mode()
    def step(self, rows: list[Row]) -> torch.Tensor:
        """Feed the next token of each of `rows`, which ascend by index; the logits after them, [N, V]."""
        logits_NV = self._step_first_rows(rows) if self._deterministic or self._graphs else self._step_rows(rows)
        for row in rows:
            row.length += 1
        return logits_NV

    def _step_rows(self, rows: list[Row]) -> torch.Tensor:
        """A step of exactly these rows."""
        plan = self._plan
        if plan is None or plan.steps_left == 0 or plan.rows != rows:
            plan = self._plan = self._make_plan(rows)
        plan.steps_left -= 1
        ids_N1 = torch.tensor([[row.ids[row.length]] for row in rows])
        positions_N1 = torch.tensor([[row.length] for row in rows])
        longest = [max(row.length for row in rows[read.first : read.last]) + 1 for read in plan.reads]
        reads = [read._replace(span=span) for read, span in zip(plan.reads, longest, strict=True)]
        return self._forward(ids_N1, plan.rows_N, positions_N1, reads)

    def _make_plan(self, rows: list[Row]) -> _Plan:
        indices, lengths = [row.index for row in rows], [row.length + 1 for row in rows]
        reads = plan_reads(indices, lengths, self._capacity, self._cells_per_read)
        steps = min(round_up(length, self._capacity) - length for length in lengths) + 1
        return _Plan(rows, torch.tensor(indices), reads, steps)

    def _step_first_rows(self, rows: list[Row]) -> torch.Tensor:
        """A step of as many rows as there are, or as include these ones, so that shapes recur; logits of these.

        What the others compute goes to the scratch cell of their row.
        """
        indices = [row.index for row in rows]
        count, span = self.cache.rows, self.cache.cells
        if not self._deterministic:
            count = next((n for n in _ROWS_ON_CUDA if max(indices) < n <= count), count)
            span = round_up(max(row.length for row in rows) + 1, self._capacity)
        ids, positions = np.zeros(count, np.int64), np.full(count, self._capacity, np.int64)
        for row in rows:
            ids[row.index], positions[row.index] = row.ids[row.length], row.length
        device = self._model.device
        forward = self._graphs or self._forward_first_rows
        logits_RV = forward(torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device), span)
        return logits_RV[torch.tensor(indices, device=device)]

    def _forward_first_rows(self, ids_R: torch.Tensor, positions_R: torch.Tensor, span: int) -> torch.Tensor:
        count = len(ids_R)
        rows_R = torch.arange(count, device=ids_R.device)
        return self._forward(ids_R[:, None], rows_R, positions_R[:, None], [Read(0, count, span, 0, count)])

    def _forward(
        self, ids_NQ: torch.Tensor, rows_N: torch.Tensor, positions_NQ: torch.Tensor, reads: Sequence[Read]
    ) -> torch.Tensor:
        """Logits after the last token of each row, [N, V]. A position of `capacity` is the scratch cell."""
        self.cache.aim(rows_N, positions_NQ, reads)
        positions_NQ = positions_NQ.clamp(max=self._capacity - 1)
        if self.lean.is_exact:
            return self.lean(ids_NQ, positions_NQ, self.cache)
        with attending(self._model, self.cache):
            output = self._model(
                input_ids=ids_NQ,
                position_ids=positions_NQ,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]

    def _make_rows_alike(self, cache_bytes: int | None) -> None:
        """Have as few rows more as it takes for a text to have the same bits in each."""
        config, device, dtype = self._model.config, self._model.device, self._model.dtype
        held, vocabulary = self.cache.rows, config.get_text_config().vocab_size

        def feed(token: int, position: int) -> torch.Tensor:
            every_R = torch.ones(self.cache.rows, dtype=torch.long, device=device)
            return self._forward_first_rows(token * every_R, position * every_R, self.cache.cells)

        for rows in rows_to_try(held, cache_bytes, self.row_bytes):
            if rows != self.cache.rows:
                self.cache = RowCache(config, rows, self._capacity, device, dtype)
            if rows_are_alike(feed, vocabulary, self._capacity):
                return
        warnings.warn(
            f"deterministic mode cannot promise the same bytes: with {torch.get_num_threads()} threads and {held} to "
            f"{self.cache.rows} rows the bits of a text depend on its row; set threads=1, take another rollout.rows, "
            "or a higher rollout.cache_mib",
            RuntimeWarning,
            stacklevel=4,
        )
        self.cache = RowCache(config, held, self._capacity, device, dtype)
