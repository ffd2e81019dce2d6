"""A process for one execution as the supervisor sees it: made ahead, given its code, and gone with it."""

import math
import os
import selectors
import time
from collections.abc import Callable

from retool.sandbox.containment import linux, seccomp
from retool.sandbox.interpreter.job import PREPARE, READY, START, End
from retool.sandbox.supervision.capture import Capture
from retool.sandbox.supervision.execution import Clocks, Execution, Verdict
from retool.sandbox.supervision.process import NumberedProcess
from retool.sandbox.supervision.streams import Streams

SETUP_MESSAGE_BYTES = 1000


class Worker:
    """`number` and `slot` are its name and its place among the workers of its kind.

    `when_ready` is called once, when the child is locked down and waits for its job; `when_done` when it asks to exit,
    with how it would end. Raises OSError if there are no descriptors left.
    """

    def __init__(
        self,
        number: int,
        slot: int,
        selector: selectors.BaseSelector,
        when_ready: Callable[["Worker"], None],
        when_done: Callable[["Worker", End], None],
    ) -> None:
        self.number = number
        self.slot = slot
        self.execution: Execution | None = None
        self.dismissed = False
        self.has_begun = False
        """Once closed: whether its process has read any of its job."""
        self.ready_since = math.inf
        self.has_prepared = False
        self.is_closed = False
        self._output_is_taken = False
        self._selector = selector
        self._streams = Streams(selector)
        self._setup_message = Capture(SETUP_MESSAGE_BYTES)
        self._streams.errors.consume = self._setup_message.feed
        self._when_ready, self._when_done = when_ready, when_done
        self._is_locked = False
        self._listener: int | None = None
        self._process: NumberedProcess | None = None

    @property
    def far_ends(self) -> list[int]:
        """What its process needs."""
        return list(self._streams.far_ends)

    def release_far_ends(self) -> None:
        self._streams.release_far_ends()

    def begins(self, process: NumberedProcess) -> None:
        """Its process is there; it is closed with the worker."""
        self._process = process
        if self._is_locked:
            self._when_ready(self)

    def hear_that_it_is_ready(self) -> None:
        """Its process will say by its first output that it waits for its job."""
        self._streams.output.consume = lambda chunk: self.locks(None) if chunk == READY else None

    def locks(self, listener: int | None) -> None:
        """Its process is locked down and waits for its job. On `listener`, if there is one, it will ask to exit."""
        self._is_locked = True
        self.ready_since = time.monotonic()
        self._listener = listener
        if listener is not None:
            self._selector.register(listener, selectors.EVENT_READ, self._asks_to_exit)
        if self._process:
            self._when_ready(self)

    def prepare(self) -> None:
        """Let it prepare for its job."""
        self.has_prepared = True
        self._streams.input.send(PREPARE, last=False)

    def start(self, execution: Execution) -> None:
        """Give it `execution` to run."""
        self.execution = execution
        self._streams.output.consume = execution.stdout.feed
        self._streams.errors.consume = execution.stderr.feed
        execution.started(self.clocks())
        self._streams.input.send(execution.input if self.has_prepared else START + execution.input, last=True)

    def dismiss(self) -> None:
        """Let its process end without a job."""
        self.dismissed = True
        self._streams.input.send(b"", last=True)

    def clocks(self) -> Clocks:
        return self._process.clocks()

    def kill(self, verdict: Verdict | None = None) -> None:
        """End its process. `verdict` is what the execution will be told, should it not have ended by itself before."""
        if self.execution and verdict:
            self.execution.kill_verdict = verdict
            self.execution.next_check = float("inf")
        if self._process:
            self._process.kill()

    def take_output(self) -> None:
        """Nothing will be printed any more: take what is left in the streams, and close them."""
        self._output_is_taken = True
        self.has_begun = self._streams.input.was_read
        self._streams.close()

    def close(self) -> str:
        """Its process has ended, or is about to: take what is left in the streams and close everything.

        Returns what it said about the reason, if it ended before it was ready.
        """
        self.is_closed = True
        if not self._output_is_taken:
            self.take_output()
        if self._listener is not None:
            self._selector.unregister(self._listener)
            os.close(self._listener)
        if self._process:
            self._process.close()
        return self._setup_message.text()

    def _asks_to_exit(self) -> None:
        """What it has done is done: that is told before the kernel takes the process apart, which takes a while.

        Its answer is its end by force: whatever else the code has prepared, nothing of it runs any more.
        """
        if self.is_closed:
            return  # by an earlier event of the same turn
        question = seccomp.receive_question(self._listener, linux.MACHINE)
        if question is None:
            return  # it was killed meanwhile
        exit_code = question.arguments[0] & 0xFF
        end = End(exit_code << 8, self._process.cpu_s(), self._process.peak_bytes())
        self._when_done(self, end)
        self.kill()
        if self.execution:
            self.close()
