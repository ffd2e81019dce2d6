"""What an evaluation leaves: its numbers, for all problems and for each set, in `results.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retool.analysis import behaviour
from retool.evaluation import summarize
from retool.files import publish
from retool.grading import Grader
from retool.types import StopReason, Trajectory


def measure(
    trajectories: Sequence[Trajectory], seed: int, equal: Callable[[str, str], bool] = str.__eq__
) -> dict[str, Any]:
    """Accuracy with its interval, and behaviour, of one set of trajectories. `equal`: are two wrong answers the same
    vote?"""
    return summarize(trajectories, seed=seed, equal=equal) | behaviour(trajectories)


def write_results(
    out: Path, trajectories: Sequence[Trajectory], grader: Grader, seed: int, sets: bool, **facts: Any
) -> dict[str, Any]:
    """Write and return `results.json`: what is measured, how many responses the sandbox `lost`, how many comparisons of
    answers were given up for time (`timeouts`), and `facts`; with `sets`, measured also apart for each source."""
    results = measure(trajectories, seed, grader.grade)
    if sets:
        by_source: dict[str, list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            by_source[trajectory.problem.source].append(trajectory)
        results["sets"] = {source: measure(found, seed, grader.grade) for source, found in by_source.items()}
    results["lost"] = sum(trajectory.stop is StopReason.SANDBOX for trajectory in trajectories)
    results["timeouts"] = grader.timeouts
    results |= facts
    publish(out / "results.json", json.dumps(results, indent=2) + "\n")
    return results
