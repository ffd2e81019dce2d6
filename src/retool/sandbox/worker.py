"""A child of a zygote as the supervisor sees it: forked ahead, given one execution, and gone with it."""

import array
import fcntl
import os
import selectors
import signal
import termios
import time
from collections.abc import Callable

from retool.sandbox.capture import Capture
from retool.sandbox.execution import Clocks, Execution, Verdict
from retool.sandbox.job import READY

_CHUNK_BYTES = 1 << 16
_SETUP_MESSAGE_BYTES = 1000


class _Output:
    """The near end of a child's output stream: what comes goes to `consume` until the stream is closed."""

    def __init__(self, end: int, selector: selectors.BaseSelector, consume: Callable[[bytes], None]) -> None:
        self.consume = consume
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
            self._close()
        return bool(chunk)

    def drain(self) -> None:
        """Take what is left, and close it."""
        while self.read():
            pass
        self._close()

    def _close(self) -> None:
        if self._end is not None:
            self._selector.unregister(self._end)
            os.close(self._end)
            self._end = None


class _Input:
    """A child's standard input; `far_end` is the child's own end, kept to see whether it has read anything."""

    def __init__(self, far_end: int, end: int, selector: selectors.BaseSelector) -> None:
        self._far_end = far_end
        self._end: int | None = end
        self._selector = selector
        self._data = self._unsent = memoryview(b"")
        os.set_blocking(end, False)

    def send(self, data: bytes) -> None:
        """Send `data`, as the child takes it, and close the stream."""
        self._data = self._unsent = memoryview(data)
        self._write()
        if self._unsent:
            self._selector.register(self._end, selectors.EVENT_WRITE, self._write_more)

    def close(self) -> bool:
        """Returns whether anything was read of what was sent."""
        in_pipe = array.array("i", [0])
        fcntl.ioctl(self._far_end, termios.FIONREAD, in_pipe)
        os.close(self._far_end)
        if self._end is not None:
            if self._unsent:
                self._selector.unregister(self._end)
            os.close(self._end)
            self._end = None
        return in_pipe[0] + len(self._unsent) < len(self._data)

    def _write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._end, self._unsent) :]
        except BlockingIOError:
            return
        os.close(self._end)
        self._end = None

    def _write_more(self) -> None:
        if self._end is None:
            return  # closed by an earlier event of the same turn
        self._selector.unregister(self._end)
        self._write()
        if self._unsent:
            self._selector.register(self._end, selectors.EVENT_WRITE, self._write_more)


class Worker:
    """A child's standard streams and pid. `slot` is its place among the children of its zygote.

    `when_ready` is called once, when the child is locked down and waits for its job. Raises OSError if there are no
    descriptors left.
    """

    def __init__(
        self, number: int, slot: int, selector: selectors.BaseSelector, when_ready: Callable[["Worker"], None]
    ) -> None:
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
        except OSError:
            for end in ends:
                os.close(end)
            raise
        input_read, input_write, output_read, output_write, errors_read, errors_write = ends
        self.number = number
        self.slot = slot
        self.far_ends = [input_read, output_write, errors_write]
        """The child's ends, to be sent to it and released."""
        self.execution: Execution | None = None
        self.has_begun = False
        """Once closed: whether its process has read any of its job."""
        self._setup_message = Capture(_SETUP_MESSAGE_BYTES)
        self._input = _Input(input_read, input_write, selector)
        self._output = _Output(output_read, selector, self._hear_that_it_is_locked)
        self._errors = _Output(errors_read, selector, self._setup_message.feed)
        self._when_ready = when_ready
        self._is_locked = False
        self._pid = 0
        self._handle: int | None = None

    def release_far_ends(self) -> None:
        for end in self.far_ends[1:]:  # the first is kept
            os.close(end)

    def forked(self, handle: int) -> None:
        """The zygote has forked it; `handle` is a descriptor of the process, and is closed with the worker."""
        with open(f"/proc/self/fdinfo/{handle}") as info:
            self._pid = next(int(line.split()[1]) for line in info if line.startswith("Pid:"))
        self._handle = handle
        if self._is_locked:
            self._when_ready(self)

    def start(self, execution: Execution) -> None:
        """Give it `execution` to run."""
        self.execution = execution
        self._output.consume, self._errors.consume = execution.stdout.feed, execution.stderr.feed
        execution.started(self.clocks())
        self._input.send(execution.input)

    def clocks(self) -> Clocks:
        """What its process has used so far; nothing if it has ended."""
        try:
            cpu = time.clock_gettime((~self._pid << 3) | 2)  # CPUCLOCK_SCHED of a process, linux/posix-timers.h
            with open(f"/proc/{self._pid}/schedstat", "rb") as file:
                waiting = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return Clocks(0.0, 0.0)
        return Clocks(cpu, waiting)

    def kill(self, verdict: Verdict | None = None) -> None:
        """End its process. `verdict` is what the execution will be told, should it not have ended by itself before."""
        if self.execution and verdict:
            self.execution.kill_verdict = verdict
            self.execution.next_check = float("inf")
        if self._handle is not None:
            try:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            except ProcessLookupError:
                return  # it has just ended

    def close(self) -> str:
        """Its process has ended: take what is left in the streams and close everything.

        Returns what it said about the reason, if it ended before it was ready.
        """
        self._output.drain()
        self._errors.drain()
        self.has_begun = self._input.close()
        if self._handle is not None:
            os.close(self._handle)
        return self._setup_message.text()

    def _hear_that_it_is_locked(self, chunk: bytes) -> None:
        if chunk == READY:
            self._is_locked = True
            if self._handle is not None:
                self._when_ready(self)
