"""A zygote: an interpreter with the usual imports done, that forks one child for each execution, ahead of time.

It is trusted and never sees code: for each child it receives three pipe ends, passes them to a fork of itself and
forgets them. It keeps no record of its children either, so that each of them starts from the same memory, and the same
code prints the same addresses. Linux only.

Orders come, and reports go, over descriptor 0: see `orders`.
"""

import gc
import json
import os
import resource
import select
import signal
import socket

from retool.sandbox.containment import isolation, linux, namespaces
from retool.sandbox.interpreter import child, entropy, holder, memory, pages, program
from retool.sandbox.interpreter.orders import EXITED, FAILED, FIRST, FORKED, ORDER, READY, Report, send

_CONTROL = 0
_DESCRIPTOR_BYTES = socket.CMSG_SPACE(4 * 4)  # of the four at most that come with an order
_SIGNAL_BYTES = 128  # struct signalfd_siginfo


def serve(control: socket.socket, child_ended: int, cell: isolation.Cell, address_space: int) -> None:
    """Serve one supervisor over `control` until it hangs up. `child_ended` is readable when a child has ended."""
    parent, has_process_descriptors = os.getpid(), linux.has_process_descriptors()
    poll = select.poll()
    poll.register(child_ended, select.POLLIN)
    poll.register(control, select.POLLIN)

    def receive() -> bool:
        """Do what the supervisor orders; False when it has hung up."""
        try:
            data, ancillary, _, _ = control.recvmsg(ORDER.size, _DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        if not data:
            return False
        streams = memoryview(ancillary[0][2]).cast("i").tolist()  # list() would grow CPython's free list each time
        session, number, slot = ORDER.unpack(data)  # a read ends where the next descriptors begin
        spawn(session, number, slot, streams)
        for descriptor in streams:
            os.close(descriptor)
        return True

    def spawn(session: bool, number: int, slot: int, streams: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _tell(control, Report(FAILED, number, value=error.errno).pack())
            return
        if pid == 0:
            linux.unblock_signals()
            if session:
                holder.run(streams, cell, slot, parent, address_space)
            child.run(streams, control, number, cell, slot, parent, address_space)
        if has_process_descriptors:
            handle = os.pidfd_open(pid)
            _tell(control, Report(FORKED, number, pid, 1).pack(), handle)
            os.close(handle)
        else:
            _tell(control, Report(FORKED, number, pid).pack())

    def reap(options: int) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, options)
            except ChildProcessError:
                return
            if pid == 0:
                return
            cpu_s, peak_bytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            _tell(control, Report(EXITED, 0, pid, status, peak_bytes, cpu_s).pack())

    serving = True
    while serving:
        if poll.poll()[0][0] == child_ended:  # the first of what is ready, in the order in which it was registered
            os.read(child_ended, _SIGNAL_BYTES)
            reap(os.WNOHANG)
        else:
            serving = receive()
    reap(0)  # the supervisor has killed what still ran


def _tell(control: socket.socket, data: bytes, descriptor: int | None = None) -> None:
    """`send`, and the end of this process when the supervisor is gone: there is no use for it any more."""
    try:
        send(control, data, descriptor)
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


def main(slots: int, sample: str) -> None:
    """Be a zygote with room for `slots` children at once. What they need is imported already; `sample` is a program of
    theirs by which to learn what they write to, if not empty."""
    control = socket.socket(fileno=os.dup(_CONTROL))

    def succeed(pid: int) -> None:
        if pid:
            _tell(control, Report(FIRST, pid=pid).pack())
        else:
            control.recv(1)  # the supervisor has seen the end of the parent, and is the parent now

    _be_first_to_go()
    entered = namespaces.enter(succeed)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # for the processes of sessions, whose parents end before them
    program.prepare_interpreter()
    gc.disable()
    gc.collect()
    linux.collapse_heap()
    if sample:
        memory.fill_gaps()
        gc.freeze()
        pages.learn(lambda: child.run_program(sample, echo=False))
    address_space = _address_space()
    child_ended = linux.descriptor_of_ended_children()
    cell = isolation.contain(entered, slots)
    entropy.install()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials has cleared it
    what_is_in_force = json.dumps(cell.report).encode()
    gc.collect()
    memory.fill_gaps()
    gc.freeze()
    _tell(control, Report(READY, value=len(what_is_in_force)).pack() + what_is_in_force)
    serve(control, child_ended, cell, address_space)
