"""Who did what when in a typical step of a run, from what the run's folder says of its steps and of its samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retool.reporting import StepTimes, Work
from retool.runs import RunFolder, read_rows

_PHASES = ("rollout", "update", "weights", "evaluation")
"""Of a step, in the order in which they follow one another."""


def typical_step(run: RunFolder, label: str) -> StepTimes | None:
    """The times of the step that lasts the median of the middle half of the run; None if no step is finished.

    At its beginning a run is not in step yet, at its end there is nothing left to be sampled ahead, and where few steps
    are evaluated the median is not.
    """
    rows = [row for row in read_rows(run.timings) if "began" in row]
    if not rows:
        return None
    middle = rows[len(rows) // 4 : len(rows) - len(rows) // 4]
    middle.sort(key=lambda row: sum(_phases(row).values()))
    step = middle[(len(middle) - 1) // 2]
    phases, every = _phases(step), [_phases(row) for row in rows]
    present = [phase for phase in _PHASES if any(phase in each for each in every)]
    ended = step["began"] + sum(phases.values())
    following = next((row["began"] for row in rows if row["step"] == step["step"] + 1), None)
    work = list(read_rows(run.samplers))
    return StepTimes(
        label=label,
        step=step["step"],
        steps=len(rows),
        phases=phases,
        until_next=None if following is None else following - ended,
        mean={phase: sum(each.get(phase, 0.0) for each in every) / len(rows) for phase in present},
        samplers=1 + max((row["sampler"] for row in work), default=-1),
        work=[_work(row, step) for row in work if row["ended"] > step["began"] and row["began"] < ended],
    )


def _phases(row: Mapping[str, Any]) -> dict[str, float]:
    return {phase: row[f"{phase}_seconds"] for phase in _PHASES if f"{phase}_seconds" in row}


def _work(row: Mapping[str, Any], step: Mapping[str, Any]) -> Work:
    return Work(
        sampler=row["sampler"],
        kind=row["did"],
        began=row["began"] - step["began"],
        ended=row["ended"] - step["began"],
        name=row["group"] if "group" in row else f"version {row['version']}",
        ahead=row.get("step", step["step"]) - step["step"],
        lost=row["lost"],
    )
