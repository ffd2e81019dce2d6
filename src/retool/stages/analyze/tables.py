"""The tables of an analysis as files: CSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from retool.analysis import Call, Correction, Response, Revision
from retool.files import publish


def _record_columns(record: type) -> dict[str, type]:
    """The fields of a record: what may be missing is of the type that it has when it is there."""
    hints = get_type_hints(record)
    return {
        name: next(kind for kind in get_args(hint) or (hint,) if kind is not NoneType) for name, hint in hints.items()
    }


def _columns(kind: type, *names: str) -> dict[str, type]:
    return dict.fromkeys(names, kind)


_PLACE = {"arm": str, "step": int}
_INTERVAL = _columns(float, "low", "high")
_SHARE = {"calls": int, "share": float} | _INTERVAL | _columns(float, "in_correct", "in_incorrect", "accuracy")
_PAIR = _columns(str, "first", "second")
_ACCURACIES = _columns(float, "first_accuracy", "second_accuracy", "difference")

COLUMNS: dict[str, dict[str, type]] = {
    "responses": _record_columns(Response),
    "calls": _record_columns(Call),
    "corrections": _record_columns(Correction),
    "revisions": _record_columns(Revision),
    "curves": _PLACE | {"metric": str, "value": float} | _INTERVAL,
    "health": _PLACE
    | {"responses": int, "calls": int, "calls_per_response": float, "most_calls": int}
    | _columns(float, "responses_with_a_call", "truncated_responses", "ok", "failed", "malformed", "timed_out", "lost")
    | _columns(float, "repeated", "lines_per_call"),
    "verdicts": _PLACE | {"status": str} | _SHARE,
    "errors": _PLACE | {"error_type": str} | _SHARE,
    "purposes": _PLACE | {"purpose": str} | _SHARE,
    "purpose_changes": {"arm": str, "purpose": str, "first_step": int, "last_step": int}
    | _columns(float, "before", "after", "difference"),
    "usefulness": _PLACE
    | {"by": str, "value": str, "responses": int, "share": float, "accuracy": float}
    | _INTERVAL
    | _columns(float, "within_problem", "tokens"),
    "best_number_of_calls": _PLACE
    | {"calls": str, "accuracy": float}
    | _INTERVAL
    | {"responses_with_more": int, "accuracy_with_more": float},
    "cost": _PLACE
    | _columns(int, "responses", "correct")
    | _columns(float, "reasoning_tokens", "call_tokens", "result_tokens")
    | _columns(float, "tokens_per_correct", "calls_per_correct", "tool_seconds_per_correct"),
    "comparisons": _PAIR
    | {"problems": int}
    | _ACCURACIES
    | _INTERVAL
    | {"p_value": float}
    | _columns(int, "better", "worse", "equal"),
    "where": _PAIR
    | {"by": str, "value": str, "problems": int}
    | _ACCURACIES
    | _INTERVAL
    | _columns(int, "better", "worse"),
    "problems": _PAIR
    | {"problem": str, "source": str}
    | _ACCURACIES
    | _columns(float, "first_code_ratio", "second_code_ratio"),
    "judged": _PLACE | {"response": str, "index": int, "rules": str, "judge": str},
}
"""The tables, their columns in order, and the type of each; a table without rows has its header."""


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


def _csv(columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(columns: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """With the same types whatever the rows, so that files of several analyses go together."""
    import pyarrow
    from pyarrow import parquet

    types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(kind, pyarrow.string())) for name, kind in columns.items()])
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), buffer)
    return buffer.getvalue()
