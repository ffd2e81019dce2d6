"""What a batch of trajectories costs, as the agent loop sees it: sums, what goes on now, and the timeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from retool.rollout.timeline import Timeline
from retool.sandbox import Result
from retool.types import Author


class Meter:
    """Accounts for the trajectories of one batch, those that are cancelled half-way included.

    `on_change` is called after everything that changes a number. Seconds are summed over trajectories, which wait at
    the same time: `model_seconds` for the sampler (its queue included), `tool_seconds` for the interpreter, of which
    `tool_queue_seconds` and `tool_run_seconds` are what the sandbox says of each call.
    """

    def __init__(self, timeline: Timeline | None = None, on_change: Callable[[Meter], None] = lambda _: None):
        self._timeline, self._on_change = timeline, on_change
        self.finished = 0  # trajectories that came to their end
        self.cancelled = 0
        self.waiting = 0  # trajectories that wait for the interpreter now
        self.prompt_tokens = 0
        self.tokens = dict.fromkeys(Author, 0)
        self.tool_calls = 0
        self.model_seconds = self.tool_seconds = self.tool_queue_seconds = self.tool_run_seconds = 0.0

    def record(self) -> dict[str, float]:
        """The sums, for the row of a step in timings.jsonl."""
        return {
            "trajectories": self.finished,
            "cancelled": self.cancelled,
            "prompt_tokens": self.prompt_tokens,
            "model_tokens": self.tokens[Author.MODEL],
            "interpreter_tokens": self.tokens[Author.INTERPRETER],
            "tool_calls": self.tool_calls,
            "model_seconds": self.model_seconds,
            "tool_seconds": self.tool_seconds,
            "tool_queue_seconds": self.tool_queue_seconds,
            "tool_run_seconds": self.tool_run_seconds,
        }

    def add(self, record: Mapping[str, float]) -> None:
        """Account for trajectories that another meter has followed, by its `record`."""
        self.finished += int(record["trajectories"])
        self.cancelled += int(record["cancelled"])
        self.prompt_tokens += int(record["prompt_tokens"])
        self.tokens[Author.MODEL] += int(record["model_tokens"])
        self.tokens[Author.INTERPRETER] += int(record["interpreter_tokens"])
        self.tool_calls += int(record["tool_calls"])
        self.model_seconds += record["model_seconds"]
        self.tool_seconds += record["tool_seconds"]
        self.tool_queue_seconds += record["tool_queue_seconds"]
        self.tool_run_seconds += record["tool_run_seconds"]
        self._on_change(self)

    @contextmanager
    def trajectory(self, prompt_tokens: int) -> Iterator[None]:
        """From a trajectory's begin to its end."""
        self.prompt_tokens += prompt_tokens
        try:
            yield
        except BaseException:
            self.cancelled += 1
            raise
        self.finished += 1
        self._on_change(self)

    @contextmanager
    def sampling(self, trajectory: str) -> Iterator[dict[str, Any]]:
        """While the sampler is asked for a turn. What is put into the dictionary is shown in the timeline."""
        began, facts = time.perf_counter(), {}
        try:
            yield facts
        finally:
            ended = time.perf_counter()
            self.model_seconds += ended - began
            if self._timeline:
                self._timeline.add(trajectory, "model", began, ended, **facts)

    @contextmanager
    def calling(self, trajectory: str) -> Iterator[None]:
        """While the calls of a turn are under way."""
        began = time.perf_counter()
        self.waiting += 1
        self._on_change(self)
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.waiting -= 1
            self.tool_seconds += ended - began
            if self._timeline:
                self._timeline.add(trajectory, "interpreter call", began, ended)

    def called(self, trajectory: str, index: int, began: float, result: Result) -> None:
        """Call number `index` of a turn, asked for at `began`, has its result: first it waited, then it ran."""
        ended = time.perf_counter()
        self.tool_calls += 1
        self.tool_queue_seconds += result.queue_s
        self.tool_run_seconds += result.wall_s
        if self._timeline:
            # Calls side by side overlap, which slices of one track must not.
            track = trajectory if index == 0 else f"{trajectory}, call {index + 1}"
            started = max(began, ended - result.wall_s)
            self._timeline.add(track, "queue", began, started)
            self._timeline.add(track, "run", started, ended, status=result.status, cpu_seconds=result.cpu_s)

    def wrote(self, author: Author, tokens: int) -> None:
        self.tokens[author] += tokens
        self._on_change(self)
