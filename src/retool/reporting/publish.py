"""Writing a file as a whole: an older one at its place is replaced at once, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from retool.errors import RetoolError


def publish(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, making its folder; RetoolError if that is not possible."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        if partial.is_file():
            partial.unlink()
        raise RetoolError(
            f"Could not write {path}: {error.strerror or error}. Free some space or name another place, then try again."
        ) from error
