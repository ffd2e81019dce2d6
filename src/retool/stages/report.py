"""One page about any runs and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retool.analysis import curves
from retool.reporting import CurveRow, Example, Report, System, write_report
from retool.runs import RunFolder, read_rows, read_trajectories
from retool.stages.analyze import is_run, labels, results_of, samples_of, watched

_EXAMPLES = 6  # trajectories shown of each folder
_TRAINING_METRICS = ("reward", "entropy", "explained_variance")


def report_runs(paths: Sequence[Path], out: Path) -> None:
    """Write a report of run folders (curves) and evaluation folders (tables), with trajectories of each."""
    systems, rows, examples = [], [], []
    for path, label in labels(paths).items():
        if is_run(path):
            run = RunFolder(path)
            by_step = watched(run)
            rows += run_curves(run, label)
            last = max(by_step)
            examples += [Example(f"{label}, step {last}", t) for t in by_step[last][:_EXAMPLES]]
        else:
            systems.append(System.from_json(label, results_of(path)))
            samples = read_trajectories(samples_of(path))
            examples += [Example(label, t) for t, _ in zip(samples, range(_EXAMPLES), strict=False)]
    facts = {label: str(path) for path, label in labels(paths).items()}
    write_report(out, Report(title=", ".join(facts), facts=facts, systems=systems, curves=rows, examples=examples))


def run_curves(run: RunFolder, arm: str) -> list[CurveRow]:
    """The behaviour curves and accuracy of a run, and how its training went."""
    by_step = watched(run)
    rows: list[CurveRow] = list(curves(by_step, arm))
    for step, trajectories in by_step.items():
        accuracy = sum(trajectory.correct for trajectory in trajectories) / len(trajectories)
        rows.append({"arm": arm, "step": step, "metric": "accuracy", "value": accuracy})
    for row in read_rows(run.metrics):
        for metric in _TRAINING_METRICS:
            rows.append({"arm": arm, "step": row["step"], "metric": metric, "value": row.get(metric)})
    return rows
