"""Where a stage's problems come from: the generator, a file, or a named data set."""

from __future__ import annotations

from retool.config.schema import Config
from retool.data.load import check_disjoint, load_problems
from retool.puzzles.generate import split
from retool.types import Problem

PUZZLES = "puzzles"

Worked = tuple[Problem, str | None]
"""A problem and, where there is one, a worked solution."""


def load_training(config: Config) -> list[Worked]:
    """The problems of `data.train` with their solutions."""
    data = config.data
    if data.train == PUZZLES:
        return split(data.puzzles_train, data.puzzles_heldout, config.seed)[0][: data.limit]
    return load_problems(data.train, data.mapping, data.limit).rows


def load_heldout(config: Config) -> list[Problem]:
    """The problems of `data.heldout`."""
    data = config.data
    if data.heldout == PUZZLES:
        rows = split(data.puzzles_train, data.puzzles_heldout, config.seed)[1][: data.heldout_limit]
        return [problem for problem, _ in rows]
    return load_problems(data.heldout, data.mapping, data.heldout_limit).problems


def load_split(config: Config) -> tuple[list[Worked], list[Problem]]:
    """Training and held-out problems; UsageError if they share one."""
    training, heldout = load_training(config), load_heldout(config)
    check_disjoint([problem for problem, _ in training], heldout)
    return training, heldout
