"""A zygote: an interpreter with the usual imports done, that forks one child for each execution, ahead of time.

It is trusted and never sees code: for each child it receives three pipe ends, passes them to a fork of itself and
forgets them. It keeps no record of its children either, so that each of them starts from the same memory, and the same
code prints the same addresses. Linux only.

Messages from the supervisor (descriptor 0): `spawn` with three descriptors for a child, `session` with four for the
holder of a session. Messages to it: `first` with the pid of the process to watch, `ready`, `spawned` with a descriptor
of the process, `failed`, and `exited` with the wait status and the kernel's account of what was used.
"""

import gc
import os
import resource
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any

from retool.sandbox import wire
from retool.sandbox.containment import isolation, linux, namespaces
from retool.sandbox.interpreter import child, entropy, holder, program

_CONTROL = 0
_STREAMS = 3
_MOST_DESCRIPTORS = 4
_MESSAGE_BYTES = 256  # so little that it comes from the same small blocks as everything else here


class Zygote:
    """Serves one supervisor over `control` until it hangs up."""

    def __init__(self, control: socket.socket, cell: isolation.Cell, address_space: int) -> None:
        self._control = control
        self._cell = cell
        self._address_space = address_space
        self._decoder = wire.Decoder()
        self._descriptors: list[int] = []
        self._pid = os.getpid()
        self._has_process_descriptors = linux.has_process_descriptors()

    def serve(self) -> None:
        send(self._control, {"op": "ready", "isolation": self._cell.report})
        wakeup, child_ended = os.pipe()
        for end in (wakeup, child_ended):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(child_ended, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        serving = True
        while serving:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if wakeup in ready:
                os.read(wakeup, _MESSAGE_BYTES)
                self._reap(os.WNOHANG)
            if self._control.fileno() in ready:
                serving = self._receive()
        self._reap(0)  # the supervisor has killed what still ran

    def _receive(self) -> bool:
        """Handle what the supervisor sent; False when it has hung up."""
        # The kernel ends a read where the next descriptors begin, so there is never more than one message's.
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._control, _MESSAGE_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        self._descriptors += descriptors
        for message in self._decoder.feed(data):
            self._spawn(message["id"], message["slot"], message["op"] == "session")
        return bool(data)

    def _spawn(self, worker: int, slot: int, session: bool) -> None:
        count = _STREAMS + session
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        try:
            pid = os.fork()
        except OSError as error:
            send(self._control, {"op": "failed", "id": worker, "reason": f"fork: {error.strerror}"})
        else:
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run = holder.run if session else child.run
                run(descriptors, self._cell, slot, self._pid, self._address_space)
            handles = [os.pidfd_open(pid)] if self._has_process_descriptors else []
            send(self._control, {"op": "spawned", "id": worker, "pid": pid, "handles": len(handles)}, handles)
            for handle in handles:
                os.close(handle)
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self, options: int) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, options)
            except ChildProcessError:
                return
            if pid == 0:
                return
            cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            send(self._control, {"op": "exited", "pid": pid, "status": status, "cpu_s": cpu, "peak_bytes": peak})


def send(control: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Tell the supervisor. Ends this process when that is gone: there is no use for it any more."""
    try:
        socket.send_fds(control, [wire.encode(message)], descriptors)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _address_space() -> int:
    """Bytes of address space that this process takes before any code runs."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _be_first_to_go() -> None:
    """When memory runs out, the kernel should kill a child rather than the trainer."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def main(slots: int) -> None:
    """Be a zygote with room for `slots` children at once. What they need is imported already."""
    control = socket.socket(fileno=os.dup(_CONTROL))

    def succeed(pid: int) -> None:
        if pid:
            send(control, {"op": "first", "pid": pid})
        else:
            control.recv(1)  # the supervisor has seen the end of the parent, and is the parent now

    _be_first_to_go()
    entered = namespaces.enter(succeed)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # for the processes of sessions, whose parents end before them
    program.prepare_interpreter()
    gc.collect()
    gc.freeze()
    gc.disable()
    linux.collapse_heap()
    address_space = _address_space()
    cell = isolation.contain(entered, slots)
    entropy.install()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials has cleared it
    Zygote(control, cell, address_space).serve()
