"""What the processes of a run tell each other of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from retool.config.schema import Config
from retool.types import Problem


@dataclass(frozen=True, slots=True)
class Run:
    """What `run_rl` is called with."""

    config: Config
    training: Sequence[Problem]
    heldout: Sequence[Problem]
    out: Path
    arm: str


@dataclass(frozen=True, slots=True)
class Published:
    """Version `version` of the weights: in Ray's object store, or in a `folder`; `digest` tells whether it is whole."""

    version: int
    digest: str
    shards: tuple[ray.ObjectRef, ...]
    folder: str | None = None

    def is_like(self, other: Published | None) -> bool:
        """The same weights, wherever they are."""
        return other is not None and (self.version, self.digest) == (other.version, other.digest)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last checkpoint, or the error that ended the run: what it says, and its exit code."""

    checkpoint: str = ""
    error: str = ""
    exit_code: int = 0
