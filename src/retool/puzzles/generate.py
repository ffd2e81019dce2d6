"""Draws problems from the families, balanced, and splits them so that no held-out problem is trained on."""

from __future__ import annotations

from collections.abc import Set
from random import Random

from retool.errors import UsageError
from retool.puzzles.families import FAMILIES, Puzzle
from retool.types import Problem

# So many draws in a row without a new question mean that a family has (nearly) no more of them: the smallest ones know
# a few hundred.
DRAWS_WITHOUT_NEWS = 2000


def generate(count: int, seed: int, exclude: Set[str] = frozenset(), first: int = 0) -> list[tuple[Problem, str]]:
    """`count` problems with worked solutions, the same for the same arguments; no question occurs twice.

    The families take turns; one that has no more questions to ask leaves its turns to the others. `exclude` holds
    tasks (see `task`) that must not occur, in whatever words. `first` is the number of the first problem in the ids,
    and another `first` draws other problems. `Problem.source` is the family's name.

    Raises UsageError if the families have fewer than `count` questions.
    """
    streams = {family: Random(f"{seed}/{first}/{family}") for family in FAMILIES}
    asked: set[str] = set()
    rows: list[tuple[Problem, str]] = []
    while len(rows) < count:
        if not streams:
            raise UsageError(f"{count} puzzles were asked for, but there are only {len(rows)}: ask for fewer")
        for family, stream in list(streams.items())[: count - len(rows)]:
            puzzle = _draw(family, stream, asked, exclude)
            if puzzle is None:
                del streams[family]
                continue
            asked.add(puzzle.question)
            identity = f"{family}/{first + len(rows):06}-seed{seed}"
            rows.append((Problem(identity, puzzle.question, puzzle.answer, source=family), puzzle.solution))
    return rows


def split(train: int, heldout: int, seed: int) -> tuple[list[tuple[Problem, str]], list[tuple[Problem, str]]]:
    """`train` problems to train on and `heldout` others to evaluate on, with their solutions.

    The two share no task: the same numbers in other words would be no new problem.
    """
    heldout_rows = generate(heldout, seed)
    heldout_tasks = {task(solution) for _, solution in heldout_rows}
    train_rows = generate(train, seed, exclude=heldout_tasks, first=heldout)
    shared = heldout_tasks & {task(solution) for _, solution in train_rows}
    if shared:
        raise AssertionError(f"train and held-out puzzles share {sorted(shared)[:3]}")
    return train_rows, heldout_rows


def task(solution: str) -> str:
    """The first sentence of a solution: it names what is to be worked out, whatever the words of the question."""
    return solution[: solution.index(". ") + 1]


def _draw(family: str, stream: Random, asked: Set[str], exclude: Set[str]) -> Puzzle | None:
    for _ in range(DRAWS_WITHOUT_NEWS):
        puzzle = FAMILIES[family](stream)
        if puzzle.question not in asked and puzzle.plan not in exclude:
            return puzzle
    return None
