"""Messages between client and supervisor: JSON objects, each after its length (4 bytes, big-endian).

JSON in ASCII carries every `str` that Python can hold, lone surrogates included.
"""

import json
from collections.abc import Iterator
from typing import Any

_LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 1 << 28


def encode(message: dict[str, Any]) -> bytes:
    """One message as bytes. Raises ValueError when it is longer than `MAX_MESSAGE_BYTES`."""
    body = json.dumps(message).encode("ascii")
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is longer than the {MAX_MESSAGE_BYTES} allowed")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Decoder:
    """Puts messages together again from chunks cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Take `chunk`; yield the messages that are complete now. Raises ValueError on what `encode` cannot write."""
        buffer = self._buffer
        buffer += chunk
        while len(buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if end > _LENGTH_BYTES + MAX_MESSAGE_BYTES:
                raise ValueError(f"a message announces {end} bytes, more than the {MAX_MESSAGE_BYTES} allowed")
            if len(buffer) < end:
                return
            message = json.loads(bytes(buffer[_LENGTH_BYTES:end]))
            del buffer[:end]
            yield message
