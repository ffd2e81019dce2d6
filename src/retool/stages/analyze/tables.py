"""The tables of an analysis as files: CSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retool.analysis import Call, Correction, Response
from retool.files import publish

_SHARE = ("calls", "share", "low", "high", "in_correct", "in_incorrect", "accuracy")
_PAIR = ("first", "second")

COLUMNS: dict[str, tuple[str, ...]] = {
    "responses": tuple(field.name for field in fields(Response)),
    "calls": tuple(field.name for field in fields(Call)),
    "corrections": tuple(field.name for field in fields(Correction)),
    "curves": ("arm", "step", "metric", "value", "low", "high"),
    "health": (
        *("arm", "step", "responses", "calls", "calls_per_response", "most_calls", "responses_with_a_call"),
        *("truncated_responses", "ok", "failed", "malformed", "timed_out", "lost", "repeated", "lines_per_call"),
    ),
    "verdicts": ("arm", "step", "status", *_SHARE),
    "errors": ("arm", "step", "error_type", *_SHARE),
    "purposes": ("arm", "step", "purpose", *_SHARE),
    "purpose_changes": ("arm", "purpose", "first_step", "last_step", "before", "after", "difference"),
    "usefulness": (
        *("arm", "step", "by", "value", "responses", "share", "accuracy", "low", "high", "within_problem", "tokens"),
    ),
    "best_number_of_calls": (
        *("arm", "step", "calls", "accuracy", "low", "high", "responses_with_more", "accuracy_with_more"),
    ),
    "cost": (
        *("arm", "step", "responses", "correct", "reasoning_tokens", "call_tokens", "result_tokens"),
        *("tokens_per_correct", "calls_per_correct", "tool_seconds_per_correct"),
    ),
    "comparisons": (
        *(*_PAIR, "problems", "first_accuracy", "second_accuracy", "difference", "low", "high", "p_value"),
        *("better", "worse", "equal"),
    ),
    "where": (
        *(*_PAIR, "by", "value", "problems", "first_accuracy", "second_accuracy", "difference", "low", "high"),
        *("better", "worse"),
    ),
    "problems": (
        *(*_PAIR, "problem", "source", "first_accuracy", "second_accuracy", "difference"),
        *("first_code_ratio", "second_code_ratio"),
    ),
    "judged": ("arm", "step", "response", "index", "rules", "judge"),
}
"""The tables and their columns, in order; a table without rows has its header."""


def write_tables(folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Path]:
    """Write each table as NAME.csv, and as NAME.parquet if pyarrow is there; returns the paths."""
    written = []
    for name, rows in tables.items():
        plain = [{column: _plain(row[column]) for column in COLUMNS[name]} for row in rows]
        written.append(folder / f"{name}.csv")
        publish(written[-1], _csv(COLUMNS[name], plain))
        if find_spec("pyarrow"):
            written.append(folder / f"{name}.parquet")
            publish(written[-1], _parquet(COLUMNS[name], plain))
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str):  # half a surrogate pair, which UTF-8 cannot hold, as an escape
        return value.encode(errors="backslashreplace").decode()
    return value


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({column: [row[column] for row in rows] for column in columns})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
