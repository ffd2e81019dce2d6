"""When a step of training did what, on the learner and on the samplers of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class Work:
    """What sampler number `sampler` did, in seconds since the step began; it may have begun before the step, and have
    ended after it. Of what was `lost` nothing came."""

    sampler: int
    kind: Literal["rollout", "evaluation", "weights"]
    began: float
    ended: float
    name: str = ""
    """The group, or the version of the weights."""
    ahead: int = 0
    """How many steps after this one the group is learned from."""
    lost: bool = False


@dataclass(frozen=True)
class Lane:
    """What one sampler did. A group is in the first row that is free when it begins; new weights are in all rows."""

    groups: Sequence[tuple[int, Work]]
    weights: Sequence[Work]

    @classmethod
    def of(cls, work: Iterable[Work]) -> Lane:
        free_from: list[float] = []
        groups, weights = [], []
        for each in sorted(work, key=lambda each: each.began):
            if each.kind == "weights":
                weights.append(each)
                continue
            row = next((row for row, free in enumerate(free_from) if free <= each.began), len(free_from))
            free_from[row : row + 1] = [each.ended]
            groups.append((row, each))
        return cls(groups, weights)

    @property
    def rows(self) -> int:
        return max((row + 1 for row, _ in self.groups), default=1)

    def busy(self, seconds: float, rows: int) -> float:
        """The share that is covered of so many seconds and rows."""
        own = [[work for at, work in self.groups if at == row] for row in range(rows)]
        return sum(_covered([*self.weights, *row], seconds) for row in own) / (rows * seconds)


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """A step of the run `label`, which has `steps` of them."""

    label: str
    step: int
    steps: int
    phases: Mapping[str, float]
    """Seconds of `rollout`, `update`, `weights` and, of some steps, `evaluation`, which follow one after the other."""
    mean: Mapping[str, float]
    """The same over all steps of the run."""
    until_next: float | None = None
    """Seconds from the end of this step to the beginning of the next one."""
    samplers: int = 0
    """0: the learner samples itself."""
    work: Sequence[Work] = ()
    """What samplers did while the step went on."""

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    def waits(self, phase: str) -> bool:
        """Does the learner wait for samplers in it?"""
        return self.samplers > 0 and phase in ("rollout", "evaluation")

    @property
    def learner_busy(self) -> float:
        """Share of the step in which the learner does not wait."""
        return sum(seconds for phase, seconds in self.phases.items() if not self.waits(phase)) / self.seconds

    @cached_property
    def lanes(self) -> list[Lane]:
        """One a sampler."""
        work: list[list[Work]] = [[] for _ in range(self.samplers)]
        for each in self.work:
            work[each.sampler].append(each)
        return [Lane.of(own) for own in work]

    @cached_property
    def rows(self) -> int:
        """The most groups that a sampler had at a time."""
        return max((lane.rows for lane in self.lanes), default=1)

    @cached_property
    def busy(self) -> list[float]:
        """Of each sampler the mean share of `rows` that had a group, or got new weights."""
        return [lane.busy(self.seconds, self.rows) for lane in self.lanes]

    @property
    def ahead(self) -> int:
        """How many steps further the latest of the groups is that were rolled out."""
        return max((work.ahead for work in self.work), default=0)


def _covered(work: Iterable[Work], seconds: float) -> float:
    """How many of the first `seconds` lie in at least one of them."""
    found, reached = 0.0, 0.0
    for each in sorted(work, key=lambda each: each.began):
        found += max(0.0, min(each.ended, seconds) - max(each.began, reached))
        reached = max(reached, each.ended)
    return found
