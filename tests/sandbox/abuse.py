"""What hostile code is, and how a test runs it: in the sandbox only.

A snippet reports what it managed to do as `DONE …`, and what it was refused as the name of the error that it met.
Attempts on other processes use signal 0, which asks for permission and does no harm.
"""

from typing import NamedTuple

from conftest import MARK
from retool.sandbox import Limits, Result, Sandbox

QUICK = Limits(cpu_seconds=0.05, idle_seconds=0.05, wall_seconds=30.0, memory_mib=64)
ROOMY = Limits(cpu_seconds=1.0, idle_seconds=1.0, wall_seconds=30.0, memory_mib=64)

PRELUDE = f"""
import os, sys
MARK = {MARK!r}
def attempt(action, *arguments):
    try:
        print("DONE", action, action(*arguments))
    except BaseException as error:
        print(type(error).__name__)
def look_for(names, folder):
    found = set(names) & set(os.listdir(folder))
    if not found:
        raise FileNotFoundError
    return found
def others():
    return [pid for pid in range(1, 300) if pid != os.getpid()]
"""

SYSTEM_CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def system_call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "a system call"
"""


class Abuse(NamedTuple):
    """A snippet, and how it must end. What must be untouched afterwards is the same for all: `conftest.World`."""

    code: str
    verdicts: tuple[str, ...] = ("ok",)
    prints: str | None = None
    """The text of the result; None: any that does not report success."""

    limits: Limits = ROOMY


def refused(code: str) -> Abuse:
    """Code that goes on when it is refused what it tries."""
    return Abuse(code)


def endless(code: str) -> Abuse:
    return Abuse(code, ("time_limit",), limits=QUICK)


def perpetrate(box: Sandbox, abuse: Abuse) -> Result:
    """Run `abuse` and see that it ends as it must."""
    result = box.run_blocking(PRELUDE + abuse.code, abuse.limits)
    assert result.status in abuse.verdicts, result
    assert "DONE" not in result.stdout
    if abuse.prints is not None:
        assert result.text == abuse.prints
    elif abuse.verdicts == ("ok",):
        assert result.text, "it should have met an error"
    return result
