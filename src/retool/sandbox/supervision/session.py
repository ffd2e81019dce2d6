"""A session as the supervisor sees it: a process that holds the state, and for each block a fork that runs it.

The processes hold code that nobody has read, and what they say is believed in what concerns their own session only.
Which process it is that speaks, the kernel says; forks and signals happen only when this side agrees (`_answer`).
"""

import array
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable

from retool.sandbox.containment import linux, seccomp, syscalls
from retool.sandbox.interpreter.job import READY, BlockReport, End
from retool.sandbox.supervision.capture import Capture
from retool.sandbox.supervision.execution import Clocks, Execution, Verdict
from retool.sandbox.supervision.process import NumberedProcess, Process, status_of
from retool.sandbox.supervision.streams import Streams
from retool.sandbox.supervision.worker import SETUP_MESSAGE_BYTES

_PACKET_BYTES = 64
_PACKETS_A_TURN = 16
_CREDENTIALS = struct.Struct("3i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(16 * 4)


class Session:
    """`number` and `slot` are its names at its zygote, `kind` that of the executions which are its blocks.

    `when_block_ended` is told how each block ended, and whether the session is in the state that it has made.
    `when_lost` is called, once, when the session has ended by itself; `when_gone` when none of its processes is left.
    """

    def __init__(
        self,
        number: int,
        slot: int,
        kind: str,
        selector: selectors.BaseSelector,
        when_block_ended: Callable[["Session", End, bool], None],
        when_lost: Callable[["Session"], None],
        when_gone: Callable[["Session"], None],
    ) -> None:
        self.number, self.slot, self.kind = number, slot, kind
        self.execution: Execution | None = None
        self.failure = ""
        """Why it could not be set up, if so."""
        self.last_used = time.monotonic()
        self._selector = selector
        self._when_block_ended, self._when_lost, self._when_gone = when_block_ended, when_lost, when_gone
        self._streams = Streams(selector)
        self._setup_message = Capture(SETUP_MESSAGE_BYTES)
        self._streams.errors.consume = self._setup_message.feed
        self._control, self._far_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._control.setblocking(False)
        selector.register(self._control, selectors.EVENT_READ, self._hear)
        self._listener: int | None = None
        self._holder: Process | None = None
        self._block: Process | None = None
        self._living: set[Process] = set()
        self._may_fork = False
        self._fork_is_known = False
        self._ended = False

    @property
    def far_ends(self) -> list[int]:
        """What its process needs."""
        return [*self._streams.far_ends, self._far_control.fileno()]

    def release_far_ends(self) -> None:
        self._streams.release_far_ends()
        self._far_control.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a block."""
        return self._listener is not None and self._holder is not None and self.execution is None and not self._ended

    def begins(self, process: NumberedProcess) -> None:
        """Its first process is there."""
        if isinstance(process, Process):
            self._holder = self._watch(process)
        else:
            self.lose("sessions need descriptors of processes, which this kernel does not offer")
            process.kill()

    def start(self, execution: Execution) -> None:
        """Run `execution` as the next block."""
        self._streams.output.consume = self._streams.errors.consume = len
        self._streams.output.drain()  # what threads of earlier blocks have printed since belongs to no block
        self._streams.errors.drain()
        self.execution = execution
        self._streams.output.consume, self._streams.errors.consume = execution.stdout.feed, execution.stderr.feed
        self._may_fork, self._fork_is_known = True, False
        execution.started(Clocks(0.0, 0.0))
        self._streams.input.send(execution.input, last=False)

    def clocks(self) -> Clocks:
        return self._block.clocks() if self._block else Clocks(0.0, 0.0)

    def kill(self, verdict: Verdict | None = None) -> None:
        """End the block that runs, with `verdict`. The session goes on with the state before it, if it is sound."""
        if not self._fork_is_known:
            self.lose("the session was lost: its process did not run the block as it should")
            return
        if self.execution and verdict:
            self.execution.kill_verdict = verdict
            self.execution.next_check = float("inf")
        if self._block:
            self._block.kill()

    def end(self) -> None:
        """End the session and all its processes."""
        if self._ended:
            return
        self._ended = True
        for child in self._unknown_children():
            child.kill()
            child.close()
        for process in self._living:
            process.kill()
        self._streams.close()
        self._selector.unregister(self._control)
        self._control.close()
        if self._listener is not None:
            self._selector.unregister(self._listener)
            os.close(self._listener)
        if not self._living:
            self._when_gone(self)

    def _watch(self, process: Process) -> Process:
        self._living.add(process)
        self._selector.register(process.handle, selectors.EVENT_READ, lambda: self._process_ended(process))
        return process

    def _process_ended(self, process: Process) -> None:
        if process not in self._living:
            return  # an earlier event of the same turn
        self._living.remove(process)
        self._selector.unregister(process.handle)
        process.close()
        if process is self._holder and not self._ended:
            self._hear()  # what it has said last
            self.lose()
        if self._ended and not self._living:
            self._when_gone(self)

    def lose(self, reason: str = "") -> None:
        """It has ended by itself, or with its zygote."""
        if self._ended:
            return
        self._streams.errors.drain()
        self.failure = reason or self._setup_message.text()
        self.end()
        self._when_lost(self)

    def _hear(self) -> None:
        for _ in range(_PACKETS_A_TURN):  # whoever sends packets without end must not keep the supervisor to himself
            if self._ended:
                return
            try:
                data, ancillary, _, _ = self._control.recvmsg(_PACKET_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            sender, descriptors = _unpack(ancillary)
            if not data:
                return  # the end of its processes will be told by their handles
            if data == READY and self._listener is None and len(descriptors) == 1:
                self._listener = descriptors.pop()
                self._selector.register(self._listener, selectors.EVENT_READ, self._answer)
            for descriptor in descriptors:
                os.close(descriptor)
            if self.execution:
                self._obey(data, sender)

    def _obey(self, report: bytes, sender: int) -> None:
        if report == BlockReport.STARTED.value and self._block is None:
            self._meet(sender)
        elif report == BlockReport.DONE.value and self._block and sender == self._block.pid:
            end = End(0, self._block.cpu_s(), self._block.peak_bytes())
            former, self._holder, self._block = self._holder, self._block, None
            former.kill()
            self._finish(end, kept=True)
        elif report[:1] == BlockReport.ENDED.value and sender == self._holder.pid:
            if not self._may_fork and not self._fork_is_known:
                self.lose("the session was lost: there is a process in it that has not said who it is")
                return
            self._block = None
            self._finish(End.unpack(report), kept=False)

    def _finish(self, end: End, kept: bool) -> None:
        self._streams.output.drain()
        self._streams.errors.drain()
        self._may_fork = False
        self.last_used = time.monotonic()
        self._when_block_ended(self, end, kept)
        self.execution = None

    def _answer(self) -> None:
        """A process of the session asks to fork, or to send a signal."""
        if self._ended:
            return  # by an earlier event of the same turn
        question = seccomp.receive_question(self._listener, linux.MACHINE)
        if question is None:
            return
        asker, asker_inside = _process_of(question.thread)
        if question.call == "clone":
            allow = self._may_fork and asker == self._holder.pid and question.arguments[0] == syscalls.FORK
            self._may_fork = self._may_fork and not allow  # once a block
        else:
            allow = question.arguments[0] & 0xFFFFFFFF == asker_inside  # itself
        seccomp.answer_question(self._listener, question, allow)

    def _meet(self, pid: int) -> None:
        """The process `pid` says that it is the fork that was agreed to. It may have ended already."""
        try:
            process = Process(os.pidfd_open(pid))
        except ProcessLookupError:
            self._fork_is_known = True
            return
        if _parent_of(pid) == self._holder.pid:
            self._fork_is_known = True
            self._block = self._watch(process)
        else:
            process.close()

    def _unknown_children(self) -> list[Process]:
        """Children of the session's processes that have not said who they are."""
        parents, found = {process.pid for process in self._living}, []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in parents and _parent_of(int(name)) in parents:
                try:
                    found.append(Process(os.pidfd_open(int(name))))
                except ProcessLookupError:
                    continue
        return found


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """The sender's pid and the descriptors that came with a packet."""
    sender, descriptors = 0, array.array("i")
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(data)[0]
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return sender, list(descriptors)


def _parent_of(pid: int) -> int:
    return int((status_of(pid, "PPid") or [b"0"])[0])


def _process_of(thread: int) -> tuple[int, int]:
    """The pid of a thread's process, here and in its own PID namespace."""
    numbers = status_of(thread, "NStgid") or [b"0"]
    return int(numbers[0]), int(numbers[-1])
