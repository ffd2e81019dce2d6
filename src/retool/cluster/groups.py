"""What is still to be sampled, by whom it is being done, and what is done: each group of trajectories once.

A group is all samples of one problem at one step, and one sampler's work. Groups are handed out in the order of steps.
One that is lost on the way is handed out again, before all others; its trajectories have the same names, so whatever
was lost cannot be counted beside what takes its place. Knows nothing of processes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from retool.config.sampling import SamplingConfig
from retool.types import Problem

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """What all groups of a step are asked for: the arguments of a workbench's `roll_out`. `rewards` are functions."""

    step: int
    arm: str
    samples: int
    sampling: SamplingConfig
    oversample: float
    rewards: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`key` is its own within a run. Its trajectories begin with weights of version `oldest` or newer."""

    key: str
    problem: Problem
    ask: Ask
    oldest: int


@dataclass(slots=True)
class _Entry(Generic[Result]):
    group: Group
    place: tuple[int, int]
    result: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_waiting: bool = True
    is_awaited: bool = False


class GroupQueue(Generic[Result]):
    """Groups that are begun and not yet received. Of trajectories that are complete before somebody awaits them there
    are no more than `bound` before further groups are handed out; what is awaited is handed out in any case."""

    def __init__(self, bound: int):
        self._bound = bound
        self._entries: dict[str, _Entry[Result]] = {}
        self._waiting: list[tuple[tuple[int, int], str]] = []  # a heap
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, groups: Iterable[Group]) -> None:
        """Put groups in line; those that are known already stay as they are."""
        for group in groups:
            if group.key not in self._entries:
                self._count += 1
                self._entries[group.key] = _Entry(group, (group.ask.step, self._count))
                self._put_in_line(group.key)

    def take(self, version: int) -> Group | None:
        """The next group for a sampler that has weights of `version`; None: there is nothing for it now."""
        is_full = self._unasked() >= self._bound
        passed, found = [], None
        while self._waiting and found is None:
            place, key = heapq.heappop(self._waiting)
            entry = self._entries.get(key)
            if entry is None or not entry.is_waiting:
                continue
            if entry.group.oldest <= version and (entry.is_awaited or not is_full):
                entry.is_waiting, found = False, entry.group
            else:
                passed.append((place, key))
        for each in passed:
            heapq.heappush(self._waiting, each)
        return found

    def give_back(self, group: Group) -> bool:
        """The sampler that had taken the group has lost it. False: nobody wants it any more."""
        entry = self._entries.get(group.key)
        if entry is None or entry.group is not group or entry.is_waiting or entry.result.done():
            return False
        entry.is_waiting, entry.place = True, (-1, entry.place[1])
        self._put_in_line(group.key)
        return True

    def finish(self, group: Group, result: Result) -> bool:
        """The group is complete. False: nobody wants it any more."""
        entry = self._entries.get(group.key)
        if entry is None or entry.group is not group or entry.is_waiting or entry.result.done():
            return False
        entry.result.set_result(result)
        return True

    async def result(self, key: str) -> Result:
        """Wait until the group is complete. Raises KeyError for one that was not begun."""
        entry = self._entries[key]
        entry.is_awaited = True
        return await asyncio.shield(entry.result)

    def again(self, key: str) -> None:
        """The result of a group that is complete was lost, or must not be used: it is done once more."""
        entry = self._entries[key]
        entry.result = asyncio.get_running_loop().create_future()
        entry.is_waiting, entry.place = True, (-1, entry.place[1])
        self._put_in_line(key)

    def received(self, keys: Iterable[str]) -> None:
        """The results of these groups are where they are needed, and are forgotten here."""
        for key in keys:
            del self._entries[key]

    def clear(self) -> None:
        """Nobody wants any of them any more. Who waits for a result is cancelled."""
        entries, self._entries, self._waiting = self._entries, {}, []
        for entry in entries.values():
            entry.result.cancel()

    def _put_in_line(self, key: str) -> None:
        heapq.heappush(self._waiting, (self._entries[key].place, key))

    def _unasked(self) -> int:
        """Trajectories that are complete, and that nobody has asked for yet."""
        entries = self._entries.values()
        return sum(entry.group.ask.samples for entry in entries if entry.result.done() and not entry.is_awaited)
