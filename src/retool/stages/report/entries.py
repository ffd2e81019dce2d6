"""From the files of runs and evaluations to what a report shows of each trajectory, one at a time."""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers.utils.hub import cached_file

from retool.analysis import Observation, observe
from retool.errors import UsageError
from retool.reporting import CallSeconds, Correction, Entry, LearnerTokens, Origin
from retool.runs import RunFolder
from retool.stages.analyze.sources import samples_of, stream
from retool.types import Author, Trajectory


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of trajectories, and what stands beside it. `run` is the label of the run or evaluation."""

    run: str
    origin: Origin
    step: int | None
    path: Path
    models: Sequence[str] = ()
    """Models that may have the tokenizer, apart from the one that a trajectory names."""
    learner: Path | None = None
    timeline: Path | None = None

    def __len__(self) -> int:
        """Number of trajectories, without reading them."""
        with self.path.open("rb") as file:
            return sum(1 for _ in file)

    def read(self) -> Iterator[tuple[Entry, Observation]]:
        """Each trajectory as the page shows it, and what the analysis keeps of it."""
        learned = _learner_tokens(self.learner) if self.learner and self.learner.exists() else None
        seconds = _call_seconds(self.timeline) if self.timeline and self.timeline.exists() else {}
        for trajectory in stream(self.path):
            observation = observe(trajectory, self.run)
            vocabulary = _vocabulary((*self.models, trajectory.model), self.path.resolve().parent)
            entry = Entry(
                run=self.run,
                origin=self.origin,
                step=self.step,
                trajectory=trajectory,
                prompt=None if vocabulary is None else vocabulary.text(trajectory.prompt_ids),
                pieces=vocabulary,
                purposes=[call.purpose for call in observation.calls],
                corrections=[Correction(c.failed, c.fixed, c.error, c.diagnosis) for c in observation.corrections],
                seconds=_of_calls(trajectory, seconds.get(trajectory.id, [])),
                in_loss=None if learned is None else trajectory.id in learned,
                learner=self._checked(trajectory, learned.get(trajectory.id) if learned else None),
            )
            yield entry, observation

    def _checked(self, trajectory: Trajectory, tokens: LearnerTokens | None) -> LearnerTokens | None:
        written = trajectory.tokens(Author.MODEL)
        if tokens is not None and len(tokens.logprobs) != written:
            raise UsageError(
                f"{self.learner} has {len(tokens.logprobs)} tokens of {trajectory.id}, {self.path} has {written}: the "
                "two files are not of the same update; delete the first, and the report leaves its numbers out"
            )
        return tokens


def evaluation_batch(label: str, path: Path) -> Batch:
    samples = samples_of(path)
    return Batch(label, Origin.EVALUATION, None, samples, timeline=samples.with_name("timeline") / "step-0.json")


def held_out_batches(label: str, run: RunFolder) -> list[Batch]:
    models = _checkpoints(run)
    return [Batch(label, Origin.HELD_OUT, step, path, models) for step, path in _ends_first(run.evaluations)]


def rollout_batches(label: str, run: RunFolder) -> list[Batch]:
    models = _checkpoints(run)
    return [
        Batch(
            label,
            Origin.ROLLOUT,
            step,
            path,
            models,
            path.with_suffix(".learner.npz"),
            run.timelines / f"step-{step}.json",
        )
        for step, path in _ends_first(run.trajectories)
    ]


def _checkpoints(run: RunFolder) -> list[str]:
    return [str(path) for path in sorted(run.checkpoints.glob("step-*"))[:1]]


def _ends_first(folder: Path) -> list[tuple[int, Path]]:
    """The files of a folder by step: the last, the first, then from the newest to the oldest."""
    found = sorted(((int(p.stem.removeprefix("step-")), p) for p in folder.glob("step-*.jsonl")), reverse=True)
    return [*found[:1], *found[1:][-1:], *found[1:-1]]


class _Vocabulary(dict[int, str]):
    """The text of each token id, found when it is asked for."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self._tokenizer = tokenizer
        self._texts: dict[tuple[int, ...], str] = {}

    def __missing__(self, token: int) -> str:
        # After itself, for at the beginning of a text some tokenizers leave out a token's space.
        alone, twice = (self._tokenizer.decode(ids, skip_special_tokens=False) for ids in ([token], [token, token]))
        self[token] = twice[len(alone) :]
        return self[token]

    def text(self, ids: Sequence[int] | None) -> str | None:
        """The text of a prompt; that of the last one is kept, for the samples of a group share it."""
        if ids is None:
            return None
        key = tuple(ids)
        if key not in self._texts:
            self._texts = {key: self._tokenizer.decode(ids, skip_special_tokens=False)}
        return self._texts[key]


@cache
def _vocabulary(models: tuple[str, ...], folder: Path) -> _Vocabulary | None:
    """The vocabulary of the first of some models that is on this machine, as a folder or in Hugging Face's cache.

    A folder is looked for from here, from `folder` and from those that it is in: a relative path was written down
    where the command ran, and runs are moved.
    """
    moved = [str(above / model) for model in models for above in (folder, *folder.parents) if (above / model).is_dir()]
    for model in (*models, *moved):
        try:
            found = cached_file(model, "tokenizer.json", local_files_only=True)
        except OSError:
            continue
        return _Vocabulary(Tokenizer.from_file(found))
    return None


def _learner_tokens(path: Path) -> dict[str, LearnerTokens]:
    """What the learner made of the tokens of each trajectory that was in the loss."""
    try:
        with np.load(path) as record:
            offsets, logprobs, advantages = record["offsets"], record["logprobs"], record["advantages"]
            ids = record["ids"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is no record of a learner ({error}); delete it, and the report leaves it out"
        ) from error
    bounds = zip(ids, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return {name: LearnerTokens(logprobs[i:j].tolist(), advantages[i:j].tolist()) for name, i, j in bounds}


def _call_seconds(path: Path) -> dict[str, list[CallSeconds]]:
    """The calls of each trajectory in a timeline, in the order in which they were asked for (`rollout.timeline`)."""
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    waited: dict[tuple[Any, Any], float] = {}
    found: dict[str, list[tuple[float, CallSeconds]]] = defaultdict(list)
    for event in events:
        track = event["pid"], event["tid"]
        if event["name"] == "queue":
            waited[track] = event["dur"] / 1e6
        elif event["name"] == "run":
            queue = waited.pop(track, 0.0)
            name = tracks[track].partition(", call ")[0]
            found[name].append((event["ts"] - queue * 1e6, CallSeconds(queue, event["dur"] / 1e6)))
    return {name: [seconds for _, seconds in sorted(calls, key=lambda call: call[0])] for name, calls in found.items()}


def _of_calls(trajectory: Trajectory, timed: Sequence[CallSeconds]) -> list[CallSeconds | None]:
    """One value a call: what was malformed never ran. Nothing if the timeline is not of these calls."""
    if len(timed) != len(trajectory.executed):
        return []
    remaining, executed = iter(timed), {id(call) for call in trajectory.executed}
    return [next(remaining) if id(call) in executed else None for call in trajectory.calls]
