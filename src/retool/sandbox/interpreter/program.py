"""Runs code in this process the way Python runs a program, and says by an exit code how it ended.

The code can replace anything here that it can reach. It gains nothing by that: see `child`.
"""

import _signal
import ast
import atexit
import builtins
import io
import linecache
import os
import signal
import sys
import threading
import traceback
from types import CodeType, ModuleType
from typing import NoReturn

from retool.sandbox.interpreter.job import EXCEPTION, OUT_OF_MEMORY

_TRACEBACK_CHARACTERS = 4000

# Bound before any code can replace them.
_write, _exit, _mask_signals = os.write, os._exit, _signal.pthread_sigmask
_BLOCK, _SIGNALS = int(signal.SIG_BLOCK), signal.valid_signals()
_own_files: set[str] = set()


def prepare_interpreter() -> None:
    """Make this process's interpreter one for code: it sees the libraries, and nothing of this project.

    Its standard streams are what the descriptors 0 to 2 will be; what is printed leaves at the end of each line.
    `os._exit` is `end_process`.
    """
    os._exit = end_process
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    sys.stdout = _line_writer(1)
    sys.stderr = _line_writer(2)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.chdir("/")
    os.environ.pop("PYTHONPATH", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "retool"]:
        del sys.modules[name]


def end_process(status: int) -> NoReturn:
    """`os._exit`, which no signal interrupts while somebody is asked first (`containment.seccomp.lock`). The C library
    would end this thread alone then, and the others would wait for ever for the interpreter's lock that it has held."""
    _mask_signals(_BLOCK, _SIGNALS)
    _exit(status)


def _line_writer(descriptor: int) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def new_main() -> ModuleType:
    """An empty `__main__`."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main


def execute(code: str, main: ModuleType, file: str, echo: bool = False) -> int:
    """Run `code` in `main` under the file name `file`; returns the exit code that says how it ended.

    With `echo` the value of a last expression is printed, as in a notebook.
    """
    try:
        _own_files.add(file)
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        for part in _compile(code, file, echo):
            exec(part, main.__dict__)
        _flush_output()
        return 0
    except SystemExit as exit:
        return _exit_status(exit.code)
    except BaseException as error:
        return _report(error)
    finally:
        _flush()


def shut_down() -> int:
    """What Python does at the end of a program: wait for threads, run exit handlers. Returns an exit code as well."""
    try:
        if threading.active_count() > 1:
            threading._shutdown()
        atexit._run_exitfuncs()
        _flush_output()
        return 0
    except BaseException as error:
        return _report(error)
    finally:
        _flush()


def print_error(text: str) -> None:
    _flush()
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[_write(2, data) :]


def _flush_output() -> None:
    """As Python does at its end: a stream that the code has closed or taken away needs none. Raises what it raises."""
    stream = getattr(sys, "stdout", None)
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


def _compile(source: str, file: str, echo: bool) -> list[CodeType]:
    """Raises what `compile` raises."""
    if not echo:
        return [compile(source, file, "exec", dont_inherit=True)]
    tree = ast.parse(source, file)
    parts: list[ast.Module | ast.Interactive] = [tree]
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        parts.append(ast.Interactive([tree.body.pop()]))  # printed by sys.displayhook
    modes = ("exec", "single")
    return [compile(part, file, mode, dont_inherit=True) for part, mode in zip(parts, modes, strict=False)]


def _exit_status(code: object) -> int:
    """As Python does: None is 0, a number is itself, anything else is printed to stderr and is 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print_error(f"{code}\n")
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
    print_error(text)
    return status


def _keep_own_frames(record: traceback.TracebackException | None) -> None:
    while record is not None:
        own = [frame for frame in record.stack if frame.filename in _own_files]
        record.stack = traceback.StackSummary.from_list(own)
        _keep_own_frames(record.__cause__)
        record = record.__context__


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            # The code closed or replaced the stream: what it printed there is its own affair.
            continue
