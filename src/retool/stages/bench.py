"""Where a training run gets its trajectories from: this process (`workbench`), or many (`cluster`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import CancelledError
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.learner.distributed import Processes
from retool.learner.trained import Trained
from retool.objectives.rewards import Reward, outcome_reward
from retool.stages.progress import Progress
from retool.types import Problem, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rollout:
    """A batch of graded trajectories, and what it cost: `Meter.record`, the counters of the sampler, and `occupancy`,
    the share of `rollout.rows` that took part in a decode step, if the sampler says. `events` counts what went wrong
    meanwhile and was made good, by name."""

    trajectories: list[Trajectory]
    record: dict[str, float]
    events: dict[str, int] = field(default_factory=dict)


class RolloutBench(ABC):
    """Samples and grades. Processes that train together have one each; its coroutines are called by all of them."""

    config: Config
    arm: str
    processes: Processes

    steps_ahead = 0
    """How many steps of the future may be begun before the present one is learned from."""

    @abstractmethod
    async def roll_out(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        progress: Progress,
        arm: str | None = None,
        oversample: float = 1.0,
        rewards: Sequence[Reward] = (outcome_reward,),
        timeline: Path | None = None,
    ) -> Rollout:
        """`samples` graded trajectories of each problem, in order: the first ones of `oversample` times as many. With
        `rollout.timeline`, who did what when is written to the file `timeline`."""

    @abstractmethod
    async def begin(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        oversample: float,
        rewards: Sequence[Reward],
    ) -> None:
        """Begin, if there is somebody to do it, what `roll_out` of the same step and problems will be asked for."""

    @abstractmethod
    async def take_weights(self, version: int, trained: Trained) -> None:
        """Sample from what has been trained from now on; `version` is its name in the records."""


async def settled(processes: Processes, own: Awaitable[T]) -> list[T]:
    """What all processes come to; an error of one, or SIGTERM to one, ends it for all."""
    try:
        outcome: T | BaseException = await own
    except (Exception, CancelledError) as error:
        outcome = error
    return processes.settle(outcome)


def occupancy(record: Mapping[str, float], rows: int) -> dict[str, float]:
    """`occupancy` from the counters of a sampler that counts decode steps."""
    if not record.get("row_steps"):
        return {}
    return {"occupancy": record["row_steps"] / (record["decode_steps"] * rows)}
