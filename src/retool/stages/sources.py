"""Where a stage's problems come from: the generator, a file, or a named data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retool.config.schema import Config
from retool.data.load import Loaded, LoadReport, check_disjoint, load_problems
from retool.errors import UsageError
from retool.puzzles.generate import split
from retool.types import Problem

PUZZLES = "puzzles"

Worked = tuple[Problem, str | None]
"""A problem and, where there is one, a worked solution."""


def load_training(config: Config) -> list[Worked]:
    """The problems of `data.train` with their solutions."""
    return _load(config, skip_incomplete=False).rows


def load_sources(config: Config) -> Loaded:
    """The same for a synthesis, which does without the rows that have no problem or no answer, and reports them."""
    return _load(config, skip_incomplete=True)


def _load(config: Config, skip_incomplete: bool) -> Loaded:
    data = config.data
    if data.train == PUZZLES:
        rows = split(data.puzzles_train, data.puzzles_heldout, config.seed)[0][: data.limit]
        return Loaded(rows, LoadReport(read=len(rows)))
    return load_problems(data.train, data.mapping, data.limit, skip_incomplete=skip_incomplete)


def load_heldout(config: Config) -> list[Problem]:
    """The problems of `data.heldout`. Of several sets, ids begin with the set's name, which is also the source."""
    sets = heldout_sets(config.data.heldout)
    if len(sets) == 1:
        return _load_set(config, sets[0])
    labels = _labels(sets)
    return [
        replace(problem, id=f"{labels[name]}/{problem.id}", source=labels[name])
        for name in sets
        for problem in _load_set(config, name)
    ]


def heldout_sets(text: str) -> list[str]:
    """The names in `data.heldout`, between commas. Raises UsageError for one that is empty or comes twice."""
    names = [text] if Path(text).is_file() else [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"expected different sets with commas between them, such as aime24,aime25; found {text!r}")
    return names


def _labels(names: list[str]) -> dict[str, str]:
    """A short name for each set: a file's without its folder, unless two would be alike."""
    short = {name: Path(name).stem if Path(name).is_file() else name for name in names}
    return {name: label if list(short.values()).count(label) == 1 else name for name, label in short.items()}


def _load_set(config: Config, name: str) -> list[Problem]:
    data = config.data
    if name == PUZZLES:
        rows = split(data.puzzles_train, data.puzzles_heldout, config.seed)[1][: data.heldout_limit]
        return [problem for problem, _ in rows]
    return load_problems(name, data.mapping, data.heldout_limit).problems


def load_split(config: Config) -> tuple[list[Worked], list[Problem]]:
    """Training and held-out problems; UsageError if they share one."""
    training, heldout = load_training(config), load_heldout(config)
    check_disjoint([problem for problem, _ in training], heldout)
    return training, heldout
