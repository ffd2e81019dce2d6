"""The supervisor's ends of a process's standard streams."""

import array
import fcntl
import os
import selectors
import termios
from collections.abc import Callable
from typing import NamedTuple

_CHUNK_BYTES = 1 << 16  # the capacity of a pipe, which code may not change
_READS_OF_A_PIPE = 3  # a pipe may fill up again while it is read


class FarEnds(NamedTuple):
    """The ends of three pipes that a process is to have as its standard streams."""

    input: int
    output: int
    errors: int


class Streams:
    """Three pipes. Raises OSError if there are no descriptors left."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
        except OSError:
            for end in ends:
                os.close(end)
            raise
        self.far_ends = FarEnds(ends[0], ends[3], ends[5])
        self.input = Input(ends[0], ends[1], selector)
        self.output = Output(ends[2], selector)
        self.errors = Output(ends[4], selector)

    def release_far_ends(self) -> None:
        """They are where they belong; only that of the input is kept, to see what was read of it."""
        os.close(self.far_ends.output)
        os.close(self.far_ends.errors)

    def close(self) -> None:
        """Take what is left in the outputs, and close everything."""
        self.output.drain()
        self.errors.drain()
        self.output.close()
        self.errors.close()
        self.input.close()


class Output:
    """The near end of an output stream: what comes goes to `consume`, until the stream is closed."""

    def __init__(self, end: int, selector: selectors.BaseSelector) -> None:
        self.consume: Callable[[bytes], object] = len
        self._end: int | None = end
        self._selector = selector
        os.set_blocking(end, False)
        selector.register(end, selectors.EVENT_READ, self.read)

    def read(self) -> bool:
        """Take one chunk; False when there is none now. At the end of the stream, close it."""
        if self._end is None:
            return False  # closed by an earlier event of the same turn of the supervisor's loop
        try:
            chunk = os.read(self._end, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self.consume(chunk)
        else:
            self.close()
        return bool(chunk)

    def drain(self) -> None:
        """Take what has come, which is at most what fits into a pipe: somebody may go on writing."""
        for _ in range(_READS_OF_A_PIPE):
            if not self.read():
                return

    def close(self) -> None:
        if self._end is not None:
            self._selector.unregister(self._end)
            os.close(self._end)
            self._end = None


class Input:
    """Both ends of a standard input: what the process has not read can be told by its own end, `far_end`."""

    def __init__(self, far_end: int, end: int, selector: selectors.BaseSelector) -> None:
        self._far_end = far_end
        self._end: int | None = end
        self._selector = selector
        self._data = self._unsent = memoryview(b"")
        self._last = False
        os.set_blocking(end, False)

    def send(self, data: bytes, last: bool) -> None:
        """Send `data`, as the process takes it. `last`: nothing follows, so the stream ends there."""
        self._data = self._unsent = memoryview(data)
        self._last = last
        self._write()
        if self._unsent:
            self._selector.register(self._end, selectors.EVENT_WRITE, self._write_more)

    @property
    def was_read(self) -> bool:
        """Whether the process has read any of what was sent last."""
        in_pipe = array.array("i", [0])
        fcntl.ioctl(self._far_end, termios.FIONREAD, in_pipe)
        return in_pipe[0] + len(self._unsent) < len(self._data)

    def close(self) -> None:
        os.close(self._far_end)
        if self._end is not None:
            if self._unsent:
                self._selector.unregister(self._end)
            os.close(self._end)
            self._end = None

    def _write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._end, self._unsent) :]
        except BlockingIOError:
            return
        if self._last:
            os.close(self._end)
            self._end = None

    def _write_more(self) -> None:
        if self._end is None:
            return  # closed by an earlier event of the same turn
        self._selector.unregister(self._end)
        self._write()
        if self._unsent:
            self._selector.register(self._end, selectors.EVENT_WRITE, self._write_more)
