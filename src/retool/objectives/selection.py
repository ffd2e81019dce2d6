"""Which trajectories are trained on, and why the others are not.

Kinds "filter" and "mask": `f(trajectories, rng, **settings)` → Selection; chance, where there is any, comes from `rng`.
What a filter drops does not exist any more: a group's mean is that of the rest. What a mask drops counts in the mean
that the others are compared with, and is left out of the loss alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from retool.objectives.registry import register
from retool.types import Author, CallStatus, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Selection:
    """Positions in what was given: `kept`, ascending, and the reason for each that was `dropped`."""

    kept: list[int]
    dropped: dict[int, str]


@register("filter", "equal_rewards")
def equal_rewards(trajectories: Sequence[Trajectory], rng: np.random.Generator) -> Selection:
    """Drop groups all of whose rewards are equal: they have no gradient (DAPO's dynamic sampling, arXiv 2503.14476,
    eq. 11: 0 < number right < G). A group of one is equal."""
    groups = _groups(trajectories)
    flat = {name for name, members in groups.items() if len({trajectories[i].reward["total"] for i in members}) == 1}
    return _selection("equal rewards" if t.group in flat else None for t in trajectories)


@register("mask", "truncated")
def truncated(trajectories: Sequence[Trajectory], rng: np.random.Generator) -> Selection:
    """Drop trajectories that a limit cut off, so that none is punished for being long (overlong filtering, arXiv
    2503.14476, §3.4)."""
    return _selection(f"cut off: {t.stop}" if t.truncated else None for t in trajectories)


@register("mask", "void_turns")
def void_turns(trajectories: Sequence[Trajectory], rng: np.random.Generator) -> Selection:
    """Drop trajectories with a void turn: one of the model that has neither a call nor an answer (SimpleTIR, arXiv
    2509.02479), such as an early end. They are the ones that drift, and their gradients explode."""
    return _selection("void turn" if _has_void_turn(t) else None for t in trajectories)


@register("filter", "pass_rate")
def pass_rate(
    trajectories: Sequence[Trajectory], rng: np.random.Generator, *, low: float = 0.1, high: float = 0.9
) -> Selection:
    """Drop groups whose share of right answers lies outside [low, high]: too hard or too easy to learn from."""
    reasons: dict[str, str | None] = {}
    for name, members in _groups(trajectories).items():
        rate = sum(trajectories[i].correct for i in members) / len(members)
        reasons[name] = "too hard" if rate < low else "too easy" if rate > high else None
    return _selection(reasons[t.group] for t in trajectories)


@register("filter", "resample_on_correct")
def resample_on_correct(
    trajectories: Sequence[Trajectory], rng: np.random.Generator, *, size: int, floor: float = 0.05
) -> Selection:
    """Of each oversampled group keep `size` (GRPO-RoC, rStar2-Agent, arXiv 2508.20722): wrong ones uniformly, to keep
    the ways to fail diverse; right ones with probability ∝ 1 / (`tool_penalty` + floor), to learn from clean ones.

    Right and wrong keep their proportion, rounded; where both are there, at least one of each is kept if `size` allows.
    Drawn without replacement, group after group in order of appearance. A group of at most `size` is kept whole.
    """
    kept: set[int] = set()
    for members in _groups(trajectories).values():
        right = [i for i in members if trajectories[i].correct]
        wrong = [i for i in members if not trajectories[i].correct]
        if len(members) <= size:
            kept.update(members)
            continue
        from_right = int(size * len(right) / len(members) + 0.5)
        if right and wrong and size > 1:
            from_right = min(max(from_right, 1), size - 1)
        weights = np.array([1.0 / (tool_penalty(trajectories[i]) + floor) for i in right])
        if from_right:
            kept.update(rng.choice(right, from_right, replace=False, p=weights / weights.sum()).tolist())
        if size > from_right:
            kept.update(rng.choice(wrong, size - from_right, replace=False).tolist())
    return _selection(None if i in kept else "resampled" for i in range(len(trajectories)))


def tool_penalty(trajectory: Trajectory) -> float:
    """Share of executed calls that failed, ½ where none was executed, plus the share of calls that were malformed.

    The paper's second part counts answer tags; malformed calls are the faults of format that a protocol here can see.
    """
    executed, calls = trajectory.executed, trajectory.calls
    failed = sum(call.status is not CallStatus.OK for call in executed) / len(executed) if executed else 0.5
    return failed + (len(calls) - len(executed)) / max(len(calls), 1)


def _has_void_turn(trajectory: Trajectory) -> bool:
    calling = {call.span for call in trajectory.calls}
    authors = groupby(range(len(trajectory.spans)), key=lambda i: trajectory.spans[i].author)
    turns = [set(spans) for author, spans in authors if author is Author.MODEL]
    # Stopped so, the last turn may have written calls that were not run; those are not among `calls`.
    unrecorded = trajectory.stop in (StopReason.CALLS, StopReason.SECONDS)
    if turns and (unrecorded or trajectory.answer is not None):
        turns.pop()
    return any(not turn & calling for turn in turns)


def _groups(trajectories: Sequence[Trajectory]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, trajectory in enumerate(trajectories):
        groups[trajectory.group].append(index)
    return groups


def _selection(reasons: Iterable[str | None]) -> Selection:
    dropped = {index: reason for index, reason in enumerate(reasons)}
    kept = [index for index, reason in dropped.items() if reason is None]
    return Selection(kept, {index: reason for index, reason in dropped.items() if reason is not None})
