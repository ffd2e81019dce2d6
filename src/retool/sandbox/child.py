"""One execution: a forked child locks itself down, reads its code, runs it, and ends.

Nothing that this process writes is believed. Its exit codes can be forged by the code it runs, and gain nothing: each
of them stands for a failure of the code, and the one that does not (`SETUP_FAILED`) counts only while the code is
still unread in its pipe.
"""

import atexit
import gc
import json
import linecache
import os
import random
import signal
import sys
import threading
import traceback
from types import ModuleType
from typing import NoReturn

from retool.sandbox import isolation

EXCEPTION = 120
OUT_OF_MEMORY = 121
SETUP_FAILED = 122

_FILE = "main.py"
_TRACEBACK_CHARACTERS = 4000

# Bound before any code can replace them.
_exit, _kill, _write, _SIGKILL = os._exit, os.kill, os.write, signal.SIGKILL


def run(
    job: int, stdout: int, stderr: int, *, parent: int, cpu_seconds: float, address_space: int, filtered: bool
) -> NoReturn:
    """Become the execution of the code in pipe `job`. Never returns: this process ends here."""
    status = SETUP_FAILED
    try:
        _take_descriptors(job, stdout, stderr)
        isolation.limit_resources(cpu_seconds, address_space)
        isolation.lock_child(parent, filtered)
        code, seed = _read_job(3)
        status = EXCEPTION
        _seed(seed)
        gc.enable()
        status = _execute(code)
    except MemoryError:
        status = OUT_OF_MEMORY  # the code did not even fit in, or what it threw could not be printed
    finally:
        _exit(status)
        _kill(os.getpid(), _SIGKILL)


def _take_descriptors(job: int, stdout: int, stderr: int) -> None:
    """/dev/null, the two output pipes and the job's pipe as descriptors 0 to 3; nothing else stays open."""
    # The zygote received the three above 3, so none is overwritten before it is copied.
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, stdout, stderr, job)):
        os.dup2(source, target)
    os.closerange(4, 4096)


def _read_job(pipe: int) -> tuple[str, int]:
    """The code and its seed. The pipe stays open at the other end, so the length comes first."""
    with open(pipe, "rb") as file:
        length = int.from_bytes(file.read(4), "big")
        job = json.loads(file.read(length))
    return job["code"], job["seed"]


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)


def _execute(source: str) -> int:
    """Run `source` as a program; returns the exit code that says how it ended."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    try:
        linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
        exec(compile(source, _FILE, "exec", dont_inherit=True), main.__dict__)
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
