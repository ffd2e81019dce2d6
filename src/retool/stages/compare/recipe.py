"""Two evaluations side by side: the paired difference, and in what they differ beside the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retool.data.jsonl import parse_json
from retool.errors import UsageError
from retool.evaluation import compare
from retool.runs import read_trajectories
from retool.stages.eval.protocol import differences
from retool.types import Trajectory

IMMATERIAL = {
    "seed",
    *(f"rollout.{key}" for key in ("rows", "cache_mib", "prefill_chunk", "deterministic", "oversample", "timeline")),
    *(f"sandbox.{key}" for key in ("workers", "sessions", "session_idle_seconds", "allow_weak")),
}
"""Settings of a protocol that decide how fast an evaluation is, or which samples it draws, but not what it measures."""


def compare_evaluations(first: Path, second: Path, seed: int = 0) -> dict[str, Any]:
    """What changes from `first` to `second`, each an evaluation's folder or its file of trajectories.

    Returns a JSON object: `systems`, two of {`path`, `model`}; `comparison` of all shared problems
    (`evaluation.compare`) and, if there are several sources, of each in `sets`; `protocol`, the settings that differ,
    dotted name → [first, second], or None where a side does not say; `relabelled`, the number of shared problems with
    another reference answer. Raises UsageError if there are no shared problems.
    """
    sides = [_read(path) for path in (first, second)]
    trajectories = [found for found, _ in sides]
    results = [result for _, result in sides]
    by_source = [_by_source(found) for found in trajectories]
    sources = [source for source in by_source[0] if source in by_source[1]]
    protocols = [result.get("protocol") for result in results]
    return {
        "systems": [
            {"path": str(path), "model": result.get("model", found[0].model)}
            for path, result, found in zip((first, second), results, trajectories, strict=True)
        ],
        "comparison": compare(*trajectories, seed=seed),
        "sets": {source: compare(*(side[source] for side in by_source), seed=seed) for source in sources}
        if len(sources) > 1
        else {},
        "protocol": _changed(*protocols) if all(protocols) else None,
        "relabelled": _relabelled(*trajectories),
    }


def _read(path: Path) -> tuple[list[Trajectory], dict[str, Any]]:
    """The graded samples of an evaluation, and its results, {} if there is only the file of samples."""
    samples = path / "samples.jsonl" if path.is_dir() else path
    if not samples.is_file():
        raise UsageError(f"{path} is no evaluation: expected a folder with samples.jsonl, as `retool eval` writes it")
    trajectories = list(read_trajectories(samples))
    if not trajectories:
        raise UsageError(f"{samples} holds no samples")
    results = samples.with_name("results.json")
    return trajectories, parse_json(results.read_bytes(), str(results)) if results.is_file() else {}


def _by_source(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    found: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        found[trajectory.problem.source].append(trajectory)
    return found


def _changed(protocol: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    changed = differences(protocol, other)
    return {key: values for key, values in changed.items() if not key.startswith("model.") and key not in IMMATERIAL}


def _relabelled(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> int:
    answers, others = ({" ".join(t.problem.text.split()): t.problem.answer for t in side} for side in (first, second))
    return sum(answers[text] != others[text] for text in answers.keys() & others.keys())
