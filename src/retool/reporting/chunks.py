"""JSON values packed into compressed pieces, which the page unpacks one at a time when somebody reads them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

TYPICAL_RATIO = 3
"""Characters of JSON to a byte in the page, roughly: for what is not packed yet."""
RAW_CHARACTERS = 200_000
"""Of JSON in a chunk: unpacked in a few milliseconds, and compressed nearly as well as all of it at once."""


def pack(text: str) -> str:
    """`text` deflated and in base64, for `DecompressionStream("deflate")`; it holds nothing that HTML could read."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


class Chunks:
    """Takes values one by one; each gets a place, (name of the chunk, index in it)."""

    def __init__(self, kind: str):
        self._kind = kind
        self._open: list[str] = []
        self._open_characters = 0
        self.packed: dict[str, str] = {}
        """Chunks that are closed, by name."""
        self._packed_bytes = 0

    @property
    def bytes(self) -> int:
        """That the values take up in the page; of what is not packed yet, an estimate."""
        return self._packed_bytes + self._open_characters // TYPICAL_RATIO

    def add(self, value: Any) -> tuple[str, int]:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        place = self._next, len(self._open)
        self._open.append(written)
        self._open_characters += len(written)
        if self._open_characters >= RAW_CHARACTERS:
            self.close()
        return place

    def close(self) -> None:
        """Pack what is still open."""
        if self._open:
            name, packed = self._next, pack(f"[{','.join(self._open)}]")
            self.packed[name] = packed
            self._packed_bytes += len(packed)
            self._open, self._open_characters = [], 0

    @property
    def _next(self) -> str:
        return f"{self._kind}-{len(self.packed)}"
