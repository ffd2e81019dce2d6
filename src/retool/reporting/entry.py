"""A trajectory as a reader meets it: where it comes from, and what others found out about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from retool.types import Trajectory


class Origin(StrEnum):
    """What a trajectory was made for."""

    EVALUATION = "evaluation"
    HELD_OUT = "held-out"  # watched problems, answered by a checkpoint during training
    ROLLOUT = "rollouts"  # what an update learned from


@dataclass(frozen=True, slots=True)
class Correction:
    """Call `failed` went wrong, call `fixed` mended it; both are indices into `trajectory.calls`."""

    failed: int
    fixed: int
    error: str = ""
    diagnosis: str = ""


@dataclass(frozen=True, slots=True)
class LearnerTokens:
    """What the learner made of the model tokens of a trajectory, in order: its log-probs (nats) and advantages."""

    logprobs: Sequence[float]
    advantages: Sequence[float]


@dataclass(frozen=True, slots=True)
class CallSeconds:
    """What a call took: before it started, and from start to end."""

    queue: float
    run: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A trajectory to be read.

    `run` is the label of the run or evaluation that it belongs to, `step` its training step (None: it has none).
    `prompt` is the text of `trajectory.prompt_ids` and `pieces` the text of each token id, for whoever has the
    tokenizer at hand. `purposes` and `seconds` have one value a call (None: it never ran), or none at all.
    """

    run: str
    origin: Origin
    trajectory: Trajectory
    step: int | None = None
    prompt: str | None = None
    pieces: Mapping[int, str] | None = None
    purposes: Sequence[str] = ()
    corrections: Sequence[Correction] = ()
    seconds: Sequence[CallSeconds | None] = ()
    in_loss: bool | None = None
    """Was it learned from? None: it was not there to be."""
    learner: LearnerTokens | None = None
