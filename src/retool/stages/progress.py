"""What a stage says while it works: a live line on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from retool.rollout.meter import Meter

console = Console(stderr=True, highlight=False)

_LOG_SECONDS = 15.0  # between two lines where there is no terminal
_LIVE_SECONDS = 0.2  # between two states of the live line


class Progress:
    """Counts the steps of a stage; `with Progress("RL", steps) as progress`."""

    def __init__(self, name: str, steps: int, done: int = 0):
        self._name, self._steps, self._done = name, steps, done
        self._began = self._logged = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal)
        self._steps_task = self._bar.add_task(name, total=steps, completed=done, note="")
        self._rollout_task = self._bar.add_task("  rollout", total=1, visible=False, note="")
        self._trajectories = 0
        self._rollout_began = self._shown = 0.0
        self._cache_in_use: Callable[[], float] = lambda: 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object | TracebackType) -> None:
        self._bar.stop()
        if kind is None and not console.is_terminal:
            console.print(f"{self._name}: done, {time.monotonic() - self._began:.0f} s")

    def begin_rollout(self, trajectories: int, cache_in_use: Callable[[], float]) -> None:
        """Say from now on how far a batch of so many trajectories is, and how full the sampler's cache."""
        self._trajectories, self._cache_in_use = trajectories, cache_in_use
        self._rollout_began, self._shown = time.monotonic(), 0.0
        self._bar.reset(self._rollout_task, total=trajectories, visible=True, note="")

    def rollout_changed(self, meter: Meter) -> None:
        """Show the state of the batch, unless that has just been done."""
        now = time.monotonic()
        if now - self._shown < _LIVE_SECONDS and meter.finished < self._trajectories:
            return
        self._shown = now
        seconds = max(1e-9, now - self._rollout_began)
        note = (
            f"{sum(meter.tokens.values()) / seconds:,.0f} tokens/s, {meter.tool_calls / seconds:,.1f} calls/s, "
            f"{meter.waiting} waiting on tools"
        )
        if cache := self._cache_in_use():
            note += f", cache {cache:.0%}"
        if meter.finished and not console.is_terminal:  # there a column says so
            note += f", about {seconds / meter.finished * (self._trajectories - meter.finished):.0f} s left"
        self._bar.update(self._rollout_task, completed=meter.finished, note=note)
        self._log(f"{self._name}: {meter.finished}/{self._trajectories} trajectories  {note}")

    def step_done(self, note: str = "") -> None:
        self._done += 1
        self._bar.update(self._steps_task, advance=1, note=note)
        self._log(f"{self._name}: {self._done}/{self._steps}  {note}", now=self._done == self._steps)

    def _log(self, line: str, now: bool = False) -> None:
        """Without a terminal, print a line if the last one is some time ago."""
        if not console.is_terminal and (now or time.monotonic() - self._logged > _LOG_SECONDS):
            self._logged = time.monotonic()
            console.print(line, soft_wrap=True)  # a line of a log is a line
