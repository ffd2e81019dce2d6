"""The large figures at the top of a page: what each evaluation found, and where each run has come to."""

from __future__ import annotations

from dataclasses import dataclass

from retool.reporting.numbers import fraction
from retool.reporting.record import CurveRow, Report


@dataclass(frozen=True, slots=True)
class Figure:
    """An accuracy with its 95 % interval and a few words on it."""

    label: str
    accuracy: float
    interval: tuple[float, float] | None
    note: str


def headline(report: Report) -> list[Figure]:
    """A figure for each system, and for each arm with accuracies that is not one of them."""
    figures = [Figure(s.label, s.accuracy, s.ci95, s.note) for s in report.systems]
    known = {figure.label for figure in figures}
    for arm in report.arms:
        points = [r for r in report.curves if r["arm"] == arm and r["metric"] == "accuracy" and r["value"] is not None]
        if points and arm not in known:
            figures.append(_latest(arm, sorted(points, key=lambda row: row["step"])))
    return figures


def _latest(arm: str, points: list[CurveRow]) -> Figure:
    first, last = points[0], points[-1]
    note = f"watched problems at step {last['step']}"
    if first is not last:
        note += f", {fraction(first['value'])} at step {first['step']}"
    low, high = last.get("low"), last.get("high")
    return Figure(arm, last["value"], None if low is None or high is None else (low, high), note)
