"""Who decodes, who waits, and who keeps a row of the KV cache meanwhile. Knows nothing of tensors.

A trajectory is `active` while it has something to read or to sample, and rests while its code runs; its row stays with
it. One that has no row `waits` for one, first come first served. When all rows are taken and fewer than could decode
together are active, the one that has rested longest gives its row up, once that costs no more than waiting has cost
already: reading its tokens again takes as long as it has rested (so the whole never takes twice of what the best
decision would have taken).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field

from retool.sampling.sampler import SamplingParams, Segment, StopFunction


@dataclass(slots=True, eq=False)
class Row:
    """A trajectory in the engine: all of its `ids`, of which the first `length` are in the cache.

    `index` is its place in the cache; None: it has none at the moment. `sampled` counts the tokens drawn so far, over
    all segments: the position of the next random number. The first `lost` tokens were in the cache once.
    `is_reading`: a part of a long text was read.
    """

    ids: list[int] = field(default_factory=list)
    length: int = 0
    index: int | None = None
    sampled: int = 0
    lost: int = 0
    is_reading: bool = False

    @property
    def pending(self) -> int:
        """Tokens that are still to be read."""
        return len(self.ids) - self.length


@dataclass(slots=True, eq=False)
class Request:
    """A segment that is asked for: what was drawn so far, and who waits for it. `updates`: as `Span.updates`."""

    row: Row
    params: SamplingParams
    stop: StopFunction
    key: int
    future: asyncio.Future[Segment]
    version: int = 0
    updates: list[tuple[int, int]] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    model_logprobs: list[float] = field(default_factory=list)


class Scheduler:
    """Places trajectories in `rows` rows, of which `width` at most decode together. `may_preempt`: a resting one may
    lose its row to one that waits."""

    def __init__(self, rows: int, width: int, may_preempt: bool) -> None:
        self.rows = rows
        self._width = width
        self.active: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.preempted = 0
        """How many rows were given up so far."""
        self._may_preempt = may_preempt
        self._free = list(range(rows))  # a heap: low rows first, so that those in use lie close together
        self._resting: dict[Row, float] = {}  # since when, oldest first

    def add(self, request: Request) -> None:
        """Who has a row goes on at once; anybody else waits, and one that gave its row up before all new ones."""
        if request.row.index is not None:
            self._resting.pop(request.row, None)
            self.active.append(request)
        elif request.row.sampled:
            self.waiting.appendleft(request)
        else:
            self.waiting.append(request)

    def admit(self, now: float, seconds_per_token: float) -> None:
        """Give rows to those who wait, while there are any. Reading a token again takes `seconds_per_token`."""
        while self.waiting and (self._free or self._preempt(now, seconds_per_token)):
            request = self.waiting.popleft()
            request.row.index = heapq.heappop(self._free)
            self.active.append(request)

    def retire(self, now: float) -> None:
        """Those whose segment is complete rest from now on."""
        ended = [request for request in self.active if request.future.done()]
        if ended:
            self.active = [request for request in self.active if not request.future.done()]
            for request in ended:
                self._resting[request.row] = now

    def withdraw(self, request: Request, now: float) -> None:
        """Nobody waits for this segment any more; its trajectory rests."""
        if request in self.waiting:
            self.waiting.remove(request)
        if request in self.active:
            self.active.remove(request)
            self._resting[request.row] = now

    def release(self, row: Row) -> None:
        """The trajectory has ended; releasing it twice is harmless."""
        self._resting.pop(row, None)
        if row.index is not None:
            heapq.heappush(self._free, row.index)
            row.index, row.length = None, 0

    def seconds_to_preemption(self, now: float, seconds_per_token: float) -> float | None:
        """When nobody is active but somebody waits: after how long `admit` would help. None: only a release does."""
        if not (self.waiting and self._resting and self._may_preempt):
            return None
        return max(0.0, min(since + row.length * seconds_per_token for row, since in self._resting.items()) - now)

    @property
    def in_use(self) -> int:
        """Rows that are not free."""
        return self.rows - len(self._free)

    def _preempt(self, now: float, seconds_per_token: float) -> bool:
        if not self._may_preempt or len(self.active) >= self._width:
            return False
        for row, since in self._resting.items():
            if now - since >= row.length * seconds_per_token:
                row.lost = row.length
                self.release(row)
                self.preempted += 1
                return True
        return False
