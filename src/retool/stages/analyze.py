"""From the trajectories of runs and evaluations to the behaviour curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retool.analysis import curves
from retool.errors import UsageError
from retool.runs import RunFolder, read_trajectories
from retool.stages.eval import measure
from retool.types import Trajectory


def analyze_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """`curves`: one row per arm, step and metric of each run; `evaluations`: accuracy and behaviour of each evaluation.

    A folder with `samples.jsonl` is an evaluation, and so is a JSONL file of trajectories; one with `config.yaml` is a
    run, whose curves are those of its held-out evaluations, or of its rollouts if it made none.
    """
    rows: list[dict[str, Any]] = []
    evaluations: dict[str, Any] = {}
    for path, label in labels(paths).items():
        if is_run(path):
            rows += curves(watched(RunFolder(path)), label)
        else:
            evaluations[label] = measure(list(read_trajectories(samples_of(path))), seed=0)
    return {"curves": rows, "evaluations": evaluations}


def labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names for folders and files: the last part of each path, or all of it where two would be alike."""
    names = [path.resolve().name for path in paths]
    return {path: name if names.count(name) == 1 else str(path) for path, name in zip(paths, names, strict=True)}


def is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "trajectories").is_dir()


def watched(run: RunFolder) -> dict[int, list[Trajectory]]:
    """The trajectories of a run that its curves are drawn from, by step."""
    by_step = run.read_evaluations() or run.read_trajectories()
    if not by_step:
        raise UsageError(f"{run.path} holds no trajectories yet; only `retool rl` and `retool eval` make some")
    return by_step


def samples_of(path: Path) -> Path:
    """The file of trajectories that a path stands for. Raises UsageError if there is none."""
    samples = path / "samples.jsonl" if path.is_dir() else path
    if not samples.is_file():
        raise UsageError(f"{path} is neither a run (config.yaml, trajectories/) nor an evaluation (samples.jsonl)")
    return samples


def results_of(path: Path) -> dict[str, Any]:
    """What an evaluation found, as stored beside its samples, else measured again from them."""
    stored = samples_of(path).with_name("results.json")
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    return measure(list(read_trajectories(samples_of(path))), seed=0)
