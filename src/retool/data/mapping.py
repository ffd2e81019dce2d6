"""Which columns of a data set are the problem, the answer and the solution."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from retool.data.published import (
    after_hashes,
    before_hashes,
    last_box,
    without_dapo_wrapper,
    without_retool_wrapper,
    without_thought_marks,
)
from retool.errors import UsageError

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Columns as dotted paths (`prompt[0].content`), several names where variants of a set differ: the first wins.

    Two columns joined by a plus sign (`thoughts+solution`) are one text, a blank line between them. `solution` and `id`
    may be missing in the rows; `problem` and `answer` may not.
    """

    problem: tuple[str, ...]
    answer: tuple[str, ...]
    solution: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    clean_problem: Callable[[str], str] = _as_it_is
    clean_answer: Callable[[str], str] = _as_it_is
    clean_solution: Callable[[str], str] = _as_it_is


MAPPINGS: dict[str, ColumnMapping] = {
    "default": ColumnMapping(("problem", "question"), ("answer",), ("solution",), ("id", "unique_id")),
    "gsm8k": ColumnMapping(
        ("question", "problem"),
        ("answer",),
        ("solution", "answer"),
        ("id",),
        clean_answer=after_hashes,
        clean_solution=before_hashes,
    ),
    "math": ColumnMapping(
        ("problem",), ("answer", "solution"), ("solution",), ("id", "unique_id"), clean_answer=last_box
    ),
    "openthoughts": ColumnMapping(
        ("problem", "conversations[0].value"),
        ("answer", "ground_truth_solution", "conversations[1].value"),
        ("deepseek_reasoning+deepseek_solution", "conversations[1].value"),
        clean_problem=without_thought_marks,
        clean_answer=last_box,
        clean_solution=without_thought_marks,
    ),
    "retool-sft": ColumnMapping(
        ("messages[0].content",),
        ("messages[1].content",),
        ("messages[1].content",),
        clean_problem=without_retool_wrapper,
        clean_answer=last_box,
    ),
    "dapo-math-17k": ColumnMapping(
        ("prompt[0].content", "prompt"),
        ("reward_model.ground_truth", "answer"),
        (),
        ("extra_info.index",),
        clean_problem=without_dapo_wrapper,
    ),
    "aime24": ColumnMapping(("problem", "Problem"), ("answer", "Answer"), ("solution", "Solution"), ("id", "ID")),
    "aime25": ColumnMapping(("problem", "question"), ("answer",), (), ("id",)),
    "math-500": ColumnMapping(("problem",), ("answer",), ("solution",), ("unique_id",)),
}

CHOICES = (
    f"ready ones are {', '.join(MAPPINGS)}, and one of your own reads "
    "problem=COLUMN,answer=COLUMN[,solution=COLUMN][,id=COLUMN]"
)
"""What --mapping takes, for the messages that ask for another one."""


def find_mapping(name: str | None) -> ColumnMapping:
    """A ready mapping by name, or one from `problem=question,answer=final[,solution=…][,id=…]`."""
    name = name or "default"
    if name in MAPPINGS:
        return MAPPINGS[name]
    columns: dict[str, tuple[str, ...]] = {}
    for part in name.split(","):
        field, equals, column = part.partition("=")
        if not equals or field.strip() not in ("problem", "answer", "solution", "id") or not column.strip():
            raise UsageError(f"unknown mapping {name!r}; {CHOICES}")
        columns[field.strip()] = (column.strip(),)
    if not {"problem", "answer"} <= columns.keys():
        raise UsageError(f"the mapping {name!r} must name both a problem and an answer column")
    return ColumnMapping(**columns)


def look_up(row: Mapping[str, Any], paths: tuple[str, ...]) -> Any:
    """The value at the first of `paths` that the row has, else None. NaN, as tables write an empty cell, is none."""
    for path in paths:
        found = [_at(row, part) for part in path.split("+")]
        if len(found) > 1 and all(isinstance(value, str) for value in found):
            return "\n\n".join(found)
        if len(found) == 1 and found[0] is not None:
            return found[0]
    return None


def _at(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for name, index in _STEP.findall(path):
        if index:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return None if isinstance(value, float) and math.isnan(value) else value
