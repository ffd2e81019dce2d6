"""A run is a folder: its config, its numbers, its trajectories and its checkpoints.

    config.yaml         the resolved config          environment.json    versions, machine, isolation
    metrics.jsonl       one row a step, no clock     timings.jsonl       seconds and counters of the same steps
    alarms.jsonl        what began, or ended, to look wrong, and at which step
    events.jsonl        on a cluster: what died and was started anew; metrics.jsonl counts it, as `events.NAME`
    samplers.jsonl      on a cluster: which sampler did what, and from when to when
    trajectories/       step-N.jsonl, what update N learned from, with step-N.learner.npz beside it
    eval/               step-N.jsonl, the watched held-out problems answered by checkpoint N
    timeline/           step-N.json, who did what when in the rollouts of update N (`rollout.timeline`)
    checkpoints/        step-N/, a Hugging Face folder each; best.json names the best of them
    tensorboard/        the same rows for TensorBoard; shown_as.json, the run's name at other trackers (`log_to`)

Run again with the same config, a command goes on from the last checkpoint: what was written after it is dropped and
computed anew, so that metrics have neither gaps nor duplicates.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np

import retool
from retool.config.load import dump_config
from retool.config.schema import Config
from retool.errors import UsageError
from retool.files import cannot_write, publish
from retool.types import Trajectory

EVENTS = "events."
"""What names of metrics begin with that count the rows of events.jsonl."""


class RunFolder:
    """The folder of one training run (`retool sft`, `retool rl`). Without `writes` it is left as it is: of several
    processes that train together one writes."""

    def __init__(self, path: Path, writes: bool = True):
        self.path = path
        self.writes = writes
        self.checkpoints = path / "checkpoints"
        self.trajectories = path / "trajectories"
        self.evaluations = path / "eval"
        self.timelines = path / "timeline"
        self.metrics = path / "metrics.jsonl"
        self.timings = path / "timings.jsonl"
        self.alarms = path / "alarms.jsonl"
        self.events = path / "events.jsonl"
        self.samplers = path / "samplers.jsonl"

    def open(self, config: Config, environment: Mapping[str, Any]) -> None:
        """Make the folder, or check that the run in it has the same config. Raises UsageError if it has another."""
        resolved, existing = dump_config(config), self.path / "config.yaml"
        if existing.exists() and (found := existing.read_text(encoding="utf-8")) != resolved:
            changed = next(
                (f"{old.strip()!r} there, {new.strip()!r} now")
                for old, new in zip_longest(found.splitlines(), resolved.splitlines(), fillvalue="")
                if old != new
            )
            raise UsageError(
                f"{self.path} holds a run with another config ({changed}); name another --out, or delete that folder"
            )
        if not self.writes:
            return
        publish(existing, resolved)
        publish(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
        for folder in (self.checkpoints, self.trajectories, self.evaluations):
            folder.mkdir(exist_ok=True)

    def rewind(self, step: int, logged: int | None = None) -> None:
        """Drop what was recorded after `step`: it will be computed again. Of the logs, what is after `logged`, if the
        row of `step` is still to come."""
        if not self.writes:
            return
        last = step if logged is None else logged
        for path in (self.metrics, self.timings, self.alarms):
            if path.exists():
                kept = [row for row in read_rows(path) if row["step"] <= last]
                publish(path, "".join(json.dumps(row) + "\n" for row in kept))
        folders = (self.trajectories, self.evaluations, self.timelines)
        for path in [path for folder in folders for path in folder.glob("step-*")]:
            if int(path.name.removeprefix("step-").split(".")[0]) > step:
                path.unlink()

    def log(self, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Append a step's row to metrics.jsonl and to timings.jsonl."""
        for path, row in ((self.metrics, metrics), (self.timings, timings)):
            self._append(path, {"step": step, **row})

    def log_alarm(self, step: int, event: Literal["begins", "ends"], alarm: Mapping[str, str]) -> None:
        """Append to alarms.jsonl that an alarm begins or ends with `step`."""
        self._append(self.alarms, {"step": step, "event": event, **alarm})

    def log_event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Append to events.jsonl what has happened now."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._append(
            self.events, {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        )

    def log_work(self, sampler: int, did: str, began: float, ended: float, facts: Mapping[str, Any]) -> None:
        """Append to samplers.jsonl what a sampler `did`: `rollout`, `evaluation`, `weights`. Times are unix seconds."""
        times = {"began": round(began, 3), "ended": round(ended, 3)}
        self._append(self.samplers, {"sampler": sampler, "did": did, **times, **facts})

    def new_events(self) -> dict[str, int]:
        """How often each event has happened that the rows of metrics.jsonl do not count yet. As steps that are computed
        anew lose their rows, each event is counted once, whoever was killed when."""
        counts = Counter(row["event"] for row in read_rows(self.events))
        for row in read_rows(self.metrics):
            counts.subtract({name.removeprefix(EVENTS): n for name, n in row.items() if name.startswith(EVENTS)})
        return {name: count for name, count in sorted(counts.items()) if count}

    def write_trajectories(
        self, step: int, trajectories: Iterable[Trajectory], learner: Mapping[str, np.ndarray]
    ) -> None:
        """What update `step` has learned from, and what the `learner` made of it."""
        if self.writes:
            path = write_trajectories(self.trajectories / f"step-{step}.jsonl", trajectories)
            _write_arrays(path.with_suffix(".learner.npz"), learner)

    def write_evaluation(self, step: int, trajectories: Iterable[Trajectory]) -> None:
        if self.writes:
            write_trajectories(self.evaluations / f"step-{step}.jsonl", trajectories)

    def read_evaluations(self) -> dict[int, list[Trajectory]]:
        """The evaluations during training, by step."""
        return _by_step(self.evaluations)

    def read_trajectories(self) -> dict[int, list[Trajectory]]:
        """The rollouts of training, by step."""
        return _by_step(self.trajectories)

    def _append(self, path: Path, row: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        np.savez_compressed(path, **arrays)
    except OSError as error:
        raise cannot_write(path, error) from error


def _by_step(folder: Path) -> dict[int, list[Trajectory]]:
    found = sorted((int(path.stem.removeprefix("step-")), path) for path in folder.glob("step-*.jsonl"))
    return {step: list(read_trajectories(path)) for step, path in found}


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> Path:
    """One JSON object a line, the file as a whole or not at all."""
    publish(path, "".join(json.dumps(trajectory.to_json()) + "\n" for trajectory in trajectories))
    return path


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log, none if it is not there yet; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def read_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """The trajectories of a JSONL file. Raises UsageError naming the line that is none."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Trajectory.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}:{number} is not a trajectory: {error}") from error


def environment(**facts: Any) -> dict[str, Any]:
    """Versions and machine, with further `facts`, for environment.json."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "sympy")}
    return {
        "retool": retool.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        **facts,
    }
