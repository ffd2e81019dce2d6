"""The life of a forked child: it locks itself down, says so, reads its code, runs it, and ends.

Nothing that this process writes after it has read its code is believed. Its exit codes can be forged by the code, and
gain nothing: each of them stands for a failure of the code.
"""

import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from retool.sandbox.containment import isolation
from retool.sandbox.interpreter import entropy, memory, pages, program
from retool.sandbox.interpreter.job import EXCEPTION, OUT_OF_MEMORY, PREPARE, Terms, decode_code
from retool.sandbox.interpreter.orders import LOCKED, Report, send

Outcome = TypeVar("Outcome")

_FILE = "main.py"

# Bound before any code can replace them.
_end, _kill, _read, _write, _SIGKILL = program.end_process, os.kill, os.read, os.write, signal.SIGKILL


def run(
    pipes: list[int],
    control: socket.socket,
    number: int,
    cell: isolation.Cell,
    slot: int,
    parent: int,
    address_space: int,
) -> NoReturn:
    """Become the next execution of `slot`. `pipes` are its standard input, output and error; over `control`, the
    zygote's own line, the supervisor hears that order `number` is ready.

    Never returns: this process ends here. `address_space` are the bytes that the interpreter itself takes.
    """
    set_up(_set_up, pipes, control, number, cell, slot, parent)
    status = EXCEPTION
    try:
        pages.make_own(everything=read_exactly(1) == PREPARE)
        terms = Terms.read(read_exactly)
        isolation.limit_execution(terms.cpu_seconds, address_space + terms.memory_mib * isolation.MIB)
        code = decode_code(read_exactly(terms.code_bytes))
        entropy.seed(terms.seed)
        gc.enable()
        status = run_program(code, terms.echo)
    except MemoryError:
        status = OUT_OF_MEMORY  # the code did not even fit in, or what it threw could not be printed
    finally:
        end(status)


def run_program(code: str, echo: bool) -> int:
    """Run `code` from its start to its end; returns the exit code."""
    status = program.execute(code, program.new_main(), _FILE, echo)
    return program.shut_down() or status


def set_up(action: Callable[..., Outcome], *arguments: Any) -> Outcome:
    """What this process does before it is ready. If that fails, it ends, and its standard error tells why."""
    try:
        return action(*arguments)
    except BaseException as error:
        try:
            program.print_error(f"{type(error).__name__}: {error}")
        finally:
            _kill(os.getpid(), _SIGKILL)  # an exit might be asked for, and nobody knows yet that he is to answer
        raise


def _set_up(
    pipes: list[int], control: socket.socket, number: int, cell: isolation.Cell, slot: int, parent: int
) -> None:
    take_descriptors(pipes, besides=control.fileno())
    listener = isolation.lock_child(cell, slot, parent)
    memory.take_recent_gaps()
    send(control, Report(LOCKED, number, 0, listener is not None).pack(), listener)
    if listener is not None:
        os.close(listener)
    os.close(control.detach())


def take_descriptors(descriptors: list[int], besides: int | None = None) -> None:
    """Make `descriptors` those from 0; nothing else stays open but `besides`."""
    for target, source in enumerate(descriptors):
        os.dup2(source, target)  # the zygote received them above, so none is overwritten before it is copied
    others = len(descriptors)
    if besides is not None:
        os.closerange(others, besides)
        others = besides + 1
    os.closerange(others, 4096)


def end(status: int) -> NoReturn:
    """End this process, whatever the code has replaced."""
    _end(status)
    _kill(os.getpid(), _SIGKILL)


def read_exactly(size: int, pipe: int = 0) -> bytes:
    """`size` bytes of `pipe`. Ends this process where there are no more."""
    data = bytearray()
    while len(data) < size:
        chunk = _read(pipe, size - len(data))
        if not chunk:
            _end(0)  # the supervisor has no use for this process any more
        data += chunk
    return bytes(data)
