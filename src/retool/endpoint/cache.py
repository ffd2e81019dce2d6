"""Replies kept by the content of their requests, one JSON file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retool.errors import UsageError
from retool.files import publish


class ReplyCache:
    """A folder of replies. Files are written whole, so that processes may share it and any of them may be killed."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find(self, request: Mapping[str, Any]) -> Any:
        """The body that was answered to `request`; None if it has not been asked. UsageError for a spoilt file."""
        path = self._path(request)
        try:
            return json.loads(path.read_bytes())["reply"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is no reply that was kept ({error}); delete it, and it is asked again") from error

    def keep(self, request: Mapping[str, Any], reply: Any) -> None:
        """Remember the body `reply`, with the request for readers. Raises RetoolError if the disk is full."""
        publish(self._path(request), json.dumps({"request": request, "reply": reply}, indent=1) + "\n")

    def _path(self, request: Mapping[str, Any]) -> Path:
        content = json.dumps(request, sort_keys=True)
        return self.folder / f"{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}.json"
