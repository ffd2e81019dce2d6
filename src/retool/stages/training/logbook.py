"""What a run says of each step: rows in its folder, the same rows elsewhere, alarms in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from retool.analysis import Alarm
from retool.runs import RunFolder, read_rows
from retool.stages.progress import console
from retool.stages.training.loggers import Logger

Watch = Callable[[Sequence[Mapping[str, Any]]], list[Alarm]]


class Logbook:
    """Goes on from what the folder of `run` holds. `watch` finds the alarms of the last of some rows."""

    def __init__(self, run: RunFolder, loggers: Sequence[Logger] = (), watch: Watch = lambda rows: []):
        self._run, self._loggers, self._watch = run, loggers, watch
        self.rows: list[Mapping[str, Any]] = list(read_rows(run.metrics))
        self._active = {alarm.name for alarm in watch(self.rows)}

    def write(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Write the rows of a step, and which alarms begin and end with it. A number that is not finite becomes null:
        JSON has no other word for it."""
        metrics = {name: None if _is_lost(value) else value for name, value in metrics.items()}
        self._run.log(step, metrics, timings)
        self.rows.append({"step": step, **metrics})
        found = {alarm.name: alarm for alarm in self._watch(self.rows)}
        for name, alarm in found.items():
            if name not in self._active:
                facts = asdict(alarm)
                self._run.log_alarm(step, "begins", facts)
                line = f"[bold]alarm at step {step}, {name}:[/] {escape(f'{alarm.message}. {alarm.advice}')}"
                console.print(line, soft_wrap=True)
        for name in sorted(self._active - found.keys()):
            self._run.log_alarm(step, "ends", {"name": name})
            console.print(f"step {step}: the alarm {name} is over")
        self._active = set(found)
        row = {f"metrics/{name}": value for name, value in metrics.items() if value is not None}
        row |= {f"timings/{name}": value for name, value in timings.items() if name != "began"}  # no quantity
        for logger in self._loggers:
            logger.log(step, row)


def _is_lost(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
