"""Which steps of an RL run are saved, which checkpoints stay, and which is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from retool.config.schema import RlConfig
from retool.learner.checkpoint import (
    Best,
    drop_old_checkpoints,
    drop_old_states,
    find_best,
    name_best,
    save_checkpoint,
)
from retool.learner.trained import Trained
from retool.runs import RunFolder, read_rows

Unfinished = dict[str, Any]
"""What the rows of a step hold that has been learned from and is still to be evaluated: `metrics`, `timings`."""


class Keeper:
    """Saves checkpoints of what is `trained`: every `rl.save_every` steps, at the end, at once where one is the best so
    far, and where the run is told to stop. To be made when the run's folder has been rewound to step `first`. Made and
    called by all processes."""

    def __init__(self, run: RunFolder, rl: RlConfig, trained: Trained, tokenizer: PreTrainedTokenizerFast, first: int):
        self._folder, self._rl, self._trained, self._tokenizer = run.checkpoints, rl, trained, tokenizer
        self._once = trained.processes.once  # what the folder says decides, so one process asks it
        self._step, self._unfinished = first, None
        self._is_saved = True
        accuracies = {row["step"]: row["heldout_accuracy"] for row in read_rows(run.metrics) if _evaluated(row)}
        self._best: Best | None = self._once(lambda: find_best(self._folder, accuracies))
        self._once(self._drop_old)

    def learned(self, step: int, unfinished: Unfinished) -> None:
        """The weights are those of `step` from now on; until it is finished, its rows are kept with them."""
        self._step, self._unfinished, self._is_saved = step, unfinished, False

    def finished(self, step: int, accuracy: float | None) -> None:
        """The rows of `step` are written. `accuracy` is that on the held-out problems, None: it was not evaluated."""
        self._unfinished = None
        is_best = accuracy is not None and (self._best is None or accuracy > self._best.accuracy)
        is_due = step % self._rl.save_every == 0 or step == self._rl.steps
        if is_best or is_due or self._once(self._path.exists):  # it is there if SIGTERM had it saved unfinished
            self._save()
        if is_best:
            self._best = Best(step, accuracy)
        self._once(self._drop_old)

    def save_now(self) -> Path | None:
        """For a run that is told to stop: the checkpoint of the last step; None: there was none yet."""
        if not self._is_saved:
            self._save()
            self._once(self._drop_old)
        return self._path if self._once(self._path.exists) else None

    @property
    def _path(self) -> Path:
        return self._folder / f"step-{self._step}"

    def _save(self) -> None:
        save_checkpoint(self._folder, self._step, self._trained, self._tokenizer, {"unfinished": self._unfinished})
        self._is_saved = True

    def _drop_old(self) -> None:
        """The best one is named first, so that the one that was it can go."""
        name_best(self._folder, self._best)
        drop_old_checkpoints(self._folder, self._rl.keep_checkpoints, self._best and self._best.step)
        drop_old_states(self._folder, self._rl.keep_states)


def _evaluated(row: dict[str, Any]) -> bool:
    return "heldout_accuracy" in row
