"""JSON lines: read with errors that name file and line, written as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retool.errors import UsageError
from retool.files import publish


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) of each line that is not blank. Raises UsageError for what is no JSON object."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode())
            except ValueError as error:
                raise UsageError(f"{path}:{number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UsageError(f"{path}:{number} must be a JSON object, found {type(row).__name__}")
            yield number, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one row a line. Raises RetoolError if that is not possible; an older file stays then."""
    publish(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
