"""What a training run does not go on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retool.config.schema import Config
from retool.errors import RetoolError
from retool.stages.progress import console
from retool.types import StopReason, Trajectory

_STEPS_WITHOUT_AN_UPDATE = 3


def refuse_overload(config: Config, trajectories: Sequence[Trajectory]) -> None:
    """What the sandbox lost depends on the machine's load; in deterministic mode that must not reach the weights."""
    lost = [trajectory for trajectory in trajectories if trajectory.stop is StopReason.SANDBOX]
    if lost and config.rollout.deterministic:
        raise RetoolError(
            f"the sandbox lost {len(lost)} calls, and in deterministic mode a step cannot go on without them; free the "
            "machine and run the same command again, it goes on from the last checkpoint"
        )


def refuse_endless_nan(rows: Sequence[Mapping[str, Any]], checkpoints: Mapping[int, Path], start: str) -> None:
    """Say that all updates of the last step were dropped; RetoolError if it is the third such step in a row.

    `rows` are those of metrics.jsonl, `checkpoints` those there are by step, `start` the model that the run began with.
    """
    dropped = 0
    while dropped < len(rows) and rows[-1 - dropped].get("dropped_updates") == 1.0:
        dropped += 1
    if not dropped:
        return
    last = rows[-1]["step"]
    console.print(
        f"step {last}: all updates were dropped, for their gradients were not finite; the weights are as before"
    )
    if dropped >= _STEPS_WITHOUT_AN_UPDATE:
        good = max((step for step in checkpoints if step <= last - dropped), default=None)
        raise RetoolError(
            f"no update of steps {last - dropped + 1} to {last} had a finite gradient, so training has stopped; the "
            f"last good weights are {start if good is None else checkpoints[good]}: go on from them (--model) in "
            "another --out with a lower rl.learning_rate, model.dtype=float32, or another rl.loss or rl.reward if the "
            "one there is of your own"
        )
