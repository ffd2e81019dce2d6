"""Where the trajectories come from: runs, evaluations, files of trajectories, and files of another system's texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from retool.data.jsonl import read_jsonl
from retool.data.outputs import read_outputs
from retool.errors import UsageError
from retool.grading import Grader
from retool.rollout.grading import grade
from retool.runs import RunFolder, read_trajectories
from retool.stages.eval.results import measure
from retool.types import TRAJECTORY_SCHEMA, Trajectory


def labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Short names for folders and files: the last part of each path, or as many of the last ones as tell it from the
    others, such as `code/rl` and `text/rl`."""
    parts = {path: path.resolve().parts for path in paths}
    return {
        path: _shortest_tail(own, [other for other in parts.values() if other != own]) for path, own in parts.items()
    }


def _shortest_tail(own: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    lengths = range(1, len(own))
    found = next((n for n in lengths if all(other[-n:] != own[-n:] for other in others)), len(own))
    return str(Path(*own[-found:]))


def is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "trajectories").is_dir()


def stream(path: Path) -> Iterator[Trajectory]:
    """The trajectories of a run (its held-out evaluations, or its rollouts if it made none), of an evaluation, or of a
    file, one at a time. Texts of another system (`retool.data.outputs`) are graded. Raises UsageError where there are
    none."""
    if is_run(path):
        return chain.from_iterable(map(read_trajectories, _watched_files(RunFolder(path))))
    samples = samples_of(path)
    _, first = next(read_jsonl(samples), (0, None))
    if first is None:
        raise UsageError(f"{samples} holds no trajectories, expected at least one: it is empty")
    if first.get("schema") == TRAJECTORY_SCHEMA:
        return read_trajectories(samples)
    if "output" in first:
        return _graded(samples)
    raise UsageError(
        f"{samples} begins with a row that is neither a trajectory ({TRAJECTORY_SCHEMA}) nor a text of another system "
        "(`problem`, `answer`, `output`)"
    )


def samples_of(path: Path) -> Path:
    """The file of trajectories that a path stands for. Raises UsageError if there is none."""
    samples = path / "samples.jsonl" if path.is_dir() else path
    if not samples.is_file():
        within = sorted({str(found) for found in _within(path)})
        raise UsageError(
            f"{path} is neither a run (config.yaml, trajectories/) nor an evaluation (samples.jsonl)"
            + (f"; it holds some: name {', '.join(within)}" if within else "")
        )
    return samples


def _within(path: Path) -> Iterator[Path]:
    """Folders with trajectories, up to three levels down."""
    for pattern in ("*", "*/*", "*/*/*"):
        for found in path.glob(pattern):
            if (found / "samples.jsonl").is_file() or (is_run(found) and any(RunFolder(found).trajectories.iterdir())):
                yield found


def results_of(path: Path) -> dict[str, Any]:
    """What an evaluation found, as stored beside its samples, else measured again from them."""
    return stored_results(path) or measure(list(stream(path)), seed=0)


def stored_results(path: Path) -> dict[str, Any] | None:
    """What an evaluation folder says that it found, if it does."""
    stored = path / "results.json"
    return json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else None


def _watched_files(run: RunFolder) -> list[Path]:
    for folder in (run.evaluations, run.trajectories):
        if found := sorted(folder.glob("step-*.jsonl"), key=_step):
            return found
    raise UsageError(f"{run.path} holds no trajectories yet; only `retool rl` and `retool eval` make some")


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _graded(path: Path) -> Iterator[Trajectory]:
    with Grader() as grader:
        for trajectory in read_outputs(path):
            grade(trajectory, grader)
            yield trajectory
