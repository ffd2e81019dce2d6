"""A sampler in simulated time: rows that decode together, each step as long as its rows and their cache make it.

All active rows get a token in each step, so a row that wants m tokens ends m steps from now, however long steps are.
Time is spent from one change of the rows to the next; in between the cache grows by a token a row and step, so that k
steps take a·k + b·(c·k + n·k² / 2) seconds: a for n rows, b for a token of the cache, c tokens in it at first.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import simpy


class StepTime(Protocol):
    """Seconds of a step: `fixed(rows)`, and `token_seconds` for each token in the cache."""

    token_seconds: float

    def fixed(self, rows: float) -> float: ...


class SimulatedSampler:
    """`rows` decode at a time, the others wait; those that come back from a call go first. Reading a prompt or a
    result, and taking new weights, keeps all rows waiting."""

    def __init__(self, env: simpy.Environment, step: StepTime, rows: int, read_seconds: float):
        self.env, self.step, self.rows, self.read_seconds = env, step, rows, read_seconds
        self.tokens = 0.0  # written so far
        self.load = 0  # trajectories that have been sent here and are not over
        self._steps = 0.0
        self._cached = 0.0
        self._debt = 0.0  # seconds of reading and waiting before the next step
        self._at = env.now
        self._ends: list[tuple[float, int, simpy.Event, float]] = []
        self._waiting: deque[tuple[int, int, int, simpy.Event, Callable[[], None] | None]] = deque()
        self._count = self._epoch = 0

    def decode(
        self, held: int, new: int, tokens: int, *, first: bool, on_start: Callable[[], None] | None = None
    ) -> simpy.Event:
        """Happens when `tokens` have been written behind `held` in the cache and `new` to be read."""
        done = self.env.event()
        request = (held, new, tokens, done, on_start)
        if first:
            self._waiting.append(request)
        else:
            self._waiting.appendleft(request)
        self._change()
        return done

    def pause(self, seconds: float) -> None:
        """Nobody decodes for so long."""
        self._advance()
        self._debt += seconds
        self._schedule()

    @property
    def active(self) -> int:
        return len(self._ends)

    def _change(self) -> None:
        self._advance()
        while self._waiting and len(self._ends) < self.rows:
            held, new, tokens, done, on_start = self._waiting.popleft()
            if on_start:
                on_start()
            self._count += 1
            heapq.heappush(self._ends, (self._steps + tokens, self._count, done, held + new + tokens))
            self._cached += held + new
            self._debt += new * self.read_seconds
        self._schedule()

    def _advance(self) -> None:
        """Spend the time since the last change."""
        passed, self._at = self.env.now - self._at, self.env.now
        paid = min(passed, self._debt)
        self._debt -= paid
        rows = len(self._ends)
        if not rows or passed <= paid:
            return
        a, b = self.step.fixed(rows) + self.step.token_seconds * self._cached, self.step.token_seconds * rows
        seconds = passed - paid
        steps = (math.sqrt(a * a + 2 * b * seconds) - a) / b if b else seconds / a
        self._steps += steps
        self._cached += rows * steps
        self.tokens += rows * steps

    def _schedule(self) -> None:
        self._epoch += 1
        if not self._ends:
            return
        rows, steps = len(self._ends), max(0.0, self._ends[0][0] - self._steps)
        a = self.step.fixed(rows) + self.step.token_seconds * self._cached
        seconds = self._debt + a * steps + self.step.token_seconds * rows * steps * steps / 2
        epoch = self._epoch
        self.env.timeout(seconds).callbacks.append(lambda _: self._end(epoch))

    def _end(self, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._advance()
        self._steps = max(self._steps, self._ends[0][0])  # what rounding has left
        while self._ends and self._ends[0][0] <= self._steps + 1e-6:
            _, _, done, held = heapq.heappop(self._ends)
            self._cached = max(0.0, self._cached - held)
            done.succeed()
        self._change()
