"""The responses of an evaluation as they come, so that one that was stopped goes on instead of beginning anew.

protocol.json           what they were sampled under; another protocol does not go on in the folder
samples.partial.jsonl   those that have ended, in the order of time, ungraded, until all are there
samples.jsonl           all of them, graded, in the order of problems and samples
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from retool.data.jsonl import parse_json
from retool.errors import UsageError
from retool.files import cannot_write, publish
from retool.runs import read_rows, read_trajectories, write_trajectories
from retool.stages.eval.protocol import differences
from retool.types import Problem, StopReason, Trajectory

Place = tuple[str, int]
"""Id of the problem, and number of the sample."""


class SampleLog:
    """What the folder `out` holds of an evaluation under `protocol`, which is a JSON object. Raises UsageError if it
    holds one under another. To be entered before `add`."""

    def __init__(self, out: Path, protocol: Mapping[str, Any], problems: Sequence[Problem], samples: int):
        self._final, self._partial = out / "samples.jsonl", out / "samples.partial.jsonl"
        self._order = [(problem.id, sample) for problem in problems for sample in range(samples)]
        _check_protocol(out, protocol, self._final)
        kept = read_trajectories(self._final) if self._final.exists() else map(Trajectory.from_json, self._rows())
        wanted = set(self._order)
        self.done = {place: t for t in kept if (place := (t.problem.id, t.sample)) in wanted and not _lost(t)}
        """The responses that are there. One that the sandbox lost is not: it is sampled again."""

    def add(self, trajectory: Trajectory) -> None:
        """Keep a response that has ended."""
        try:
            self._file.write(json.dumps(trajectory.to_json()) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._partial, error) from error

    def finish(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Write `samples.jsonl` from what was there and these; returns all, in order."""
        found = self.done | {(t.problem.id, t.sample): t for t in trajectories}
        ordered = [found[place] for place in self._order]
        write_trajectories(self._final, ordered)
        return ordered

    def __enter__(self) -> Self:
        try:
            self._file = self._partial.open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self._partial, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._partial.unlink()

    def _rows(self) -> list[dict[str, Any]]:
        """The rows that are whole; half a line, where the process was killed, is cut off."""
        rows = list(read_rows(self._partial))
        if self._partial.exists():
            with self._partial.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        return rows


def _check_protocol(out: Path, protocol: Mapping[str, Any], final: Path) -> None:
    path = out / "protocol.json"
    protocol = json.loads(json.dumps(protocol))
    if path.exists():
        changed = differences(parse_json(path.read_bytes(), str(path)), protocol)
        if changed:
            key, (there, now) = next(iter(changed.items()))
            raise UsageError(
                f"{out} holds an evaluation under another protocol ({key} is {there!r:.80} there, {now!r:.80} now); "
                "name another --out, or delete that folder"
            )
    elif final.exists():
        raise UsageError(f"{final} is there already, and nothing says how it came about; name another --out")
    publish(path, json.dumps(protocol, indent=2) + "\n")


def _lost(trajectory: Trajectory) -> bool:
    return trajectory.stop is StopReason.SANDBOX
