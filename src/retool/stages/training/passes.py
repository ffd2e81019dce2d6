"""The order in which a run goes through its data: pass after pass, each in another random order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from retool.config.schema import Config
from retool.types import Problem

T = TypeVar("T")


def draw_in_passes(items: Sequence[T], count: int, seed: int, step: int) -> list[T]:
    """The `count` items of one step, counted from 0: all of them in a new random order each pass, a function of seed
    and step alone. A step between two passes has no item twice, unless there are less than `count`."""
    first, size = step * count, len(items)
    orders: dict[int, np.ndarray] = {}
    drawn = []
    for position in range(first, first + count):
        number, place = divmod(position, size)
        if number not in orders:
            orders[number] = _order(size, count, seed, number)
        drawn.append(items[int(orders[number][place])])
    return drawn


def problems_of_run(config: Config, training: Sequence[Problem], heldout: Sequence[Problem]) -> list[Problem]:
    """All problems that an RL run may ask: those of its evaluations, and those that it may draw."""
    rl, watched = config.rl, heldout[: config.rl.eval_problems]
    if rl.refill:
        return [*watched, *training]
    drawn = [draw_in_passes(training, rl.prompts, config.seed, step - 1) for step in range(1, rl.steps + 1)]
    return [*watched, *(problem for step in drawn for problem in step)]


def _order(size: int, count: int, seed: int, number: int) -> np.ndarray:
    """Indices of pass `number`, [size]: random, but what the step at its begin has had already comes after that."""
    order = np.random.default_rng([seed, number]).permutation(size)
    had = number * size % count
    if not had or size < count:
        return order
    is_late = np.isin(order, _order(size, count, seed, number - 1)[-had:])
    soon = np.flatnonzero(~is_late)[: count - had]
    return np.concatenate([order[soon], np.delete(order, soon)])
