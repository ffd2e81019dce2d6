"""Writing a file as a whole: an older one at its place is replaced at once, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from retool.errors import RetoolError


def publish(path: str | Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, making its folder; RetoolError if that is not possible."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what stopped the writing may stop this too
            partial.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: str | Path, error: OSError) -> RetoolError:
    """The error that tells a user why `path` was not written, and what to do."""
    why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return RetoolError(
        f"could not write {path}: {why}; make room or name another place, then run the same command again"
    )
