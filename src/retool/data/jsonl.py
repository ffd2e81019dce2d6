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
            row = parse_json(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise UsageError(f"{path}:{number} must be a JSON object, found {type(row).__name__}")
            yield number, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one row a line. Raises RetoolError if that is not possible; an older file stays then."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # Half a surrogate pair, which UTF-8 cannot hold, becomes the escape by which JSON writes that same character.
    publish(path, text.encode(errors="backslashreplace"))


def parse_json(content: bytes, where: str) -> Any:
    """The value that UTF-8 `content`, with or without a byte order mark, holds. Raises UsageError naming `where`."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{where} is nested too deeply to be read") from error
