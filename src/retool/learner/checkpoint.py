"""Checkpoints: a Hugging Face folder that anything loads, with `trainer/` inside for what a resume needs: tensors in
shards, by torch.distributed.checkpoint, and the rest in `state.pt`. Any number of processes can go on from it.

A checkpoint is written beside its place and published by one rename: a kill at any moment leaves the last one whole.
An older one of the same step is moved aside for it, and put back by `latest_resumable` if a kill came in between. One
that goes is renamed before it is deleted, so that no half of it is ever taken for a checkpoint. `best.json` names the
best one: {"step", "accuracy"}.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from retool.errors import RetoolError
from retool.files import publish
from retool.learner.trained import Trained

_TRAINER = "trainer"
_WRITING, _ASIDE, _GOING = ".writing", ".replaced", ".going"


def save_checkpoint(
    folder: Path, step: int, trained: Trained, tokenizer: PreTrainedTokenizerFast, facts: Mapping[str, Any]
) -> Path:
    """Write `folder/step-N`: what is trained, and `facts` that a resume needs; adapters are merged into the weights,
    and kept apart for a resume. Ctrl-C waits until it is written. Called by all processes. Raises RetoolError if the
    disk is full; then nothing half-written is left."""
    target, draft = folder / f"step-{step}", folder / f".step-{step}{_WRITING}"
    state = {"step": step, "steps_taken": trained.optimizer.steps_taken, **facts}

    def begin() -> None:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / _TRAINER).mkdir(parents=True)

    def finish() -> None:
        tokenizer.save_pretrained(draft)
        torch.save(state, draft / _TRAINER / "state.pt")
        _publish(draft, target)

    once = trained.processes.once
    try:
        with _uninterrupted():
            once(begin)
            trained.save_model(draft)
            trained.save_rest(draft / _TRAINER)
            once(finish)
    except Exception as error:  # safetensors and tokenizers raise classes of their own where the disk is full
        if trained.processes.is_writer:
            shutil.rmtree(draft, ignore_errors=True)
        full = os.strerror(errno.ENOSPC) in str(error)
        what = "the disk is full" if full else (str(error).splitlines() or [type(error).__name__])[0]
        raise RetoolError(
            f"checkpoint {target} could not be written: {what}; make room and run the same command again, "
            "it goes on from the last whole checkpoint"
        ) from error
    return target


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C takes effect after what is in here. Torch writes shards in C++ that calls back into Python: what is raised
    there becomes another error, or ends the process without a word."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield  # no handler of Python's, or none that raises in this thread
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _publish(draft: Path, target: Path) -> None:
    """Rename `draft` to `target`; an older one there stays whole, under a name of its own, until the new one stands."""
    aside = target.with_name(f".{target.name}{_ASIDE}")
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    draft.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _clear_up(folder: Path) -> None:
    """What a kill has left aside goes back to its place, or away if the new one has taken it; halves go away."""
    for half in [path for ending in (_WRITING, _GOING) for path in folder.glob(f".step-*{ending}")]:
        shutil.rmtree(half, ignore_errors=True)
    for aside in folder.glob(f".step-*{_ASIDE}"):
        target = aside.with_name(aside.name.removeprefix(".").removesuffix(_ASIDE))
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Published checkpoints as (step, path), oldest first."""
    found = [(int(path.name.removeprefix("step-")), path) for path in folder.glob("step-*") if path.is_dir()]
    return sorted(found)


def latest_resumable(folder: Path) -> Path | None:
    """The newest checkpoint that a run can go on from. What a kill has left is cleared up first: one that was being
    replaced is put back."""
    _clear_up(folder)
    return next(
        (path for _, path in reversed(list_checkpoints(folder)) if (path / _TRAINER / "state.pt").exists()), None
    )


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The `step` and the facts that `save_checkpoint` was given."""
    return torch.load(checkpoint / _TRAINER / "state.pt", map_location="cpu", weights_only=True)


def load_checkpoint(checkpoint: Path, trained: Trained) -> dict[str, Any]:
    """Go on from a checkpoint whose model `trained` has been made with; returns its `step` and facts. Called by all
    processes. Raises UsageError if it was made by other settings."""
    trained.load_rest(checkpoint / _TRAINER)
    state = load_state(checkpoint)
    trained.optimizer.steps_taken = state["steps_taken"]
    return state


def drop_old_states(folder: Path, keep: int) -> None:
    """Remove the resume state of all but the newest `keep` checkpoints; their weights stay."""
    for _, path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path / _TRAINER, ignore_errors=True)


def drop_old_checkpoints(folder: Path, keep: int | None, best: int | None = None) -> None:
    """Remove all checkpoints but the newest `keep` (None: all stay) and that of step `best`."""
    for step, path in list_checkpoints(folder)[:-keep] if keep else ():
        if step != best:
            going = path.with_name(f".{path.name}{_GOING}")
            path.rename(going)
            shutil.rmtree(going, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint whose held-out accuracy is the highest."""

    step: int
    accuracy: float


def find_best(folder: Path, accuracies: Mapping[int, float]) -> Best | None:
    """The best of the checkpoints that are there and have an accuracy; of equal ones the earliest."""
    found = [Best(step, accuracies[step]) for step, _ in list_checkpoints(folder) if step in accuracies]
    return max(found, key=lambda best: best.accuracy, default=None)


def name_best(folder: Path, best: Best | None) -> None:
    """Write `best.json`; None: there is none any more."""
    if best is None:
        (folder / "best.json").unlink(missing_ok=True)
    else:
        publish(folder / "best.json", json.dumps(asdict(best)) + "\n")
