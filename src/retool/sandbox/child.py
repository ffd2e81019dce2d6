"""One execution: a forked child locks itself down, says so, reads its code, runs it, and ends.

Nothing that this process writes after it has read its code is believed. Its exit codes can be forged by the code, and
gain nothing: each of them stands for a failure of the code.
"""

import ast
import atexit
import builtins
import gc
import linecache
import os
import signal
import sys
import threading
import traceback
from types import CodeType, ModuleType
from typing import NoReturn

from retool.sandbox import entropy, isolation
from retool.sandbox.job import EXCEPTION, OUT_OF_MEMORY, READY, Terms, decode_code

_FILE = "main.py"
_TRACEBACK_CHARACTERS = 4000

# Bound before any code can replace them.
_exit, _kill, _read, _write, _SIGKILL = os._exit, os.kill, os.read, os.write, signal.SIGKILL


def run(pipes: list[int], cell: isolation.Cell, slot: int, parent: int, address_space: int) -> NoReturn:
    """Become the next execution of `slot`. `pipes` are its standard input, output and error.

    Never returns: this process ends here. `address_space` are the bytes that the interpreter itself takes.
    """
    status = EXCEPTION
    try:
        _take_descriptors(pipes)
        _lock(cell, slot, parent)
        _write(1, READY)
        terms = Terms.read(_read_exactly)
        isolation.limit_execution(terms.cpu_seconds, address_space + terms.memory_mib * isolation.MIB)
        code = decode_code(_read_exactly(terms.code_bytes))
        entropy.seed(terms.seed)
        gc.enable()
        status = _execute(code, terms.echo)
    except MemoryError:
        status = OUT_OF_MEMORY  # the code did not even fit in, or what it threw could not be printed
    finally:
        _exit(status)
        _kill(os.getpid(), _SIGKILL)


def _take_descriptors(pipes: list[int]) -> None:
    """The pipes as descriptors 0 to 2; nothing else stays open."""
    for target, source in enumerate(pipes):
        os.dup2(source, target)  # the zygote received them above 2, so none is overwritten before it is copied
    os.closerange(3, 4096)


def _lock(cell: isolation.Cell, slot: int, parent: int) -> None:
    try:
        isolation.lock_child(cell, slot, parent)
    except OSError as error:
        _print_error(str(error))  # the supervisor finds it in the output of a child that never said that it is ready
        raise


def _read_exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = _read(0, size - len(data))
        if not chunk:
            _exit(0)  # the supervisor has no use for this child any more
        data += chunk
    return bytes(data)


def _execute(code: str, echo: bool) -> int:
    """Run `code` as a program; returns the exit code that says how it ended."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    try:
        linecache.cache[_FILE] = (len(code), None, code.splitlines(keepends=True), _FILE)
        for part in _compile(code, echo):
            exec(part, main.__dict__)
        if threading.active_count() > 1:
            threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        return 0
    except SystemExit as exit:
        return _exit_status(exit.code)
    except BaseException as error:
        return _report(error)
    finally:
        _flush()


def _compile(source: str, echo: bool) -> list[CodeType]:
    """The program, with the value of a last expression printed as in a notebook if `echo`.

    Raises what `compile` raises.
    """
    if not echo:
        return [compile(source, _FILE, "exec", dont_inherit=True)]
    tree = ast.parse(source, _FILE)
    parts = [tree]
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        parts.append(ast.Interactive([tree.body.pop()]))  # printed by sys.displayhook
    modes = ("exec", "single")
    return [compile(part, _FILE, mode, dont_inherit=True) for part, mode in zip(parts, modes, strict=False)]


def _exit_status(code: object) -> int:
    """As Python does: None is 0, a number is itself, anything else is printed to stderr and is 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _print_error(f"{code}\n")
    return 1


def _report(error: BaseException) -> int:
    """Print the traceback, the frames of the code itself only, the way a person would see it."""
    status = OUT_OF_MEMORY if isinstance(error, MemoryError) else EXCEPTION
    record = traceback.TracebackException.from_exception(error, compact=True)
    _keep_own_frames(record)
    text = "".join(record.format())
    if len(text) > _TRACEBACK_CHARACTERS:
        half = _TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters omitted …\n{text[-half:]}"
    _print_error(text)
    return status


def _keep_own_frames(record: traceback.TracebackException | None) -> None:
    while record is not None:
        record.stack = traceback.StackSummary.from_list([frame for frame in record.stack if frame.filename == _FILE])
        _keep_own_frames(record.__cause__)
        record = record.__context__


def _print_error(text: str) -> None:
    _flush()
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[_write(2, data) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            # The code closed or replaced the stream: what it printed there is its own affair.
            continue
