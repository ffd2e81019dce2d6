"""Which columns of a data set are the problem, the answer and the solution."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from retool.errors import UsageError

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def _as_it_is(text: str) -> str:
    return text


def _after_hashes(text: str) -> str:
    """GSM8K's `… #### 1,234` → `1234`; a text without the mark is the answer itself."""
    return text.rsplit("####", 1)[-1].strip().replace(",", "")


def _before_hashes(text: str) -> str:
    return text.rsplit("####", 1)[0].rstrip()


def _without_dapo_wrapper(text: str) -> str:
    """DAPO's prompts ask for a last line `Answer: …`, which contradicts `\\boxed{}`; only the question is kept."""
    text = re.sub(r"\ASolve the following math problem step by step\..*?\n\n", "", text, flags=re.DOTALL)
    return re.sub(r'\n\nRemember to put your answer on its own line after "Answer:"\.\s*\Z', "", text)


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Columns as dotted paths (`prompt[0].content`), several names where variants of a set differ: the first wins.

    `solution` and `id` may be missing in the rows; `problem` and `answer` may not.
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
        clean_answer=_after_hashes,
        clean_solution=_before_hashes,
    ),
    "dapo-math-17k": ColumnMapping(
        ("prompt[0].content", "prompt"),
        ("reward_model.ground_truth", "answer"),
        (),
        ("extra_info.index",),
        clean_problem=_without_dapo_wrapper,
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
    """The value at the first of `paths` that the row has, else None."""
    for path in paths:
        value: Any = row
        for name, index in _STEP.findall(path):
            if index:
                value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
            else:
                value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None
