"""What is kept of an output stream: its beginning and its end, within a number of bytes."""


class Capture:
    """Keeps all of a stream up to `limit` bytes, and the first and last `limit / 2` of a longer one."""

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._head_limit = (limit + 1) // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_limit - len(self._head)
        if room:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        if len(self._tail) > 2 * self._tail_limit + 65536:  # trim now and then, not for every small write
            del self._tail[: len(self._tail) - self._tail_limit]

    def text(self) -> str:
        """The stream as text: UTF-8, other bytes as `\\xNN`; what was left out is replaced by a line that counts it."""
        tail = bytes(self._tail[max(0, len(self._tail) - self._tail_limit) :])
        omitted = self.total - len(self._head) - len(tail)
        if not omitted:
            return _decode(bytes(self._head) + tail)
        head = _without_broken_end(bytes(self._head))
        tail = _without_broken_start(tail)
        return f"{_decode(head)}\n… {self.total - len(head) - len(tail)} bytes omitted …\n{_decode(tail)}"


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _without_broken_end(data: bytes) -> bytes:
    """`data` without the first bytes of a character whose last bytes were cut off."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if width > back else data
        if byte < 0x80:
            break
    return data


def _without_broken_start(data: bytes) -> bytes:
    """`data` without the last bytes of a character whose first bytes were cut off."""
    for skip in range(min(4, len(data))):
        if data[skip] & 0xC0 != 0x80:
            return data[skip:]
    return data
