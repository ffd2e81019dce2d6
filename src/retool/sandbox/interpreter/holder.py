"""The life of a session's process: it holds the state that the blocks so far have made, and forks for each next one.

The fork runs the block. If that goes well, the fork is the holder from then on, and the supervisor ends this process;
if not, the fork ends, and this process, in which nothing has changed, waits for the next block. A fork takes place only
when the supervisor agrees, once a block (see `seccomp.session_lock`). Like `child`, this code shares its process with
code that nobody has read, and is believed in nothing but what concerns its own session.
"""

import gc
import os
import signal
import socket
from typing import NoReturn

from retool.sandbox.containment import isolation
from retool.sandbox.interpreter import child, entropy, memory, program
from retool.sandbox.interpreter.job import EXCEPTION, OUT_OF_MEMORY, READY, BlockReport, End, Terms, decode_code

_CONTROL, _JOBS = 3, 4

# Bound before any code can replace them.
_fork, _wait, _set_timer = os.fork, os.wait4, signal.setitimer

_TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF


def run(descriptors: list[int], cell: isolation.Cell, slot: int, parent: int, address_space: int) -> NoReturn:
    """Become the holder of an empty state. `descriptors`: the three standard streams, and the session's control socket.

    Never returns: this process ends here.
    """
    status = EXCEPTION
    try:
        control = child.set_up(_set_up, descriptors, cell, slot, parent)
        memory.take_recent_gaps()
        gc.enable()
        _hold(control, address_space)
    finally:
        child.end(status)


def _set_up(descriptors: list[int], cell: isolation.Cell, slot: int, parent: int) -> socket.socket:
    child.take_descriptors(descriptors)
    _move_jobs()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=_CONTROL)
    listener = isolation.lock_session(cell, slot, parent)
    socket.send_fds(control, [READY], [listener])
    os.close(listener)
    return control


def _move_jobs() -> None:
    """Jobs come from a descriptor of their own, and the standard input of all blocks is empty."""
    os.dup2(0, _JOBS)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _read(size: int) -> bytes:
    return child.read_exactly(size, _JOBS)


def _hold(control: socket.socket, address_space: int) -> None:
    main, blocks = program.new_main(), 0
    while True:
        terms = Terms.read(_read)
        code = decode_code(_read(terms.code_bytes))
        fork = _fork()
        if fork:
            _, status, usage = _wait(fork, 0)
            control.sendall(End(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024).pack())
            continue
        control.sendall(BlockReport.STARTED.value)
        status = OUT_OF_MEMORY
        try:
            isolation.limit_execution(terms.cpu_seconds, address_space + terms.memory_mib * isolation.MIB)
            if not blocks:
                entropy.seed(terms.seed)
            status = program.execute(code, main, f"block {blocks + 1}", terms.echo)
        finally:
            if status:
                child.end(status)
        for timer in _TIMERS:
            _set_timer(timer, 0)  # the next block's process would not have it, and here its handler would disturb
        blocks += 1
        control.sendall(BlockReport.DONE.value)
