"""The Linux calls that Python's standard library does not offer, through the C library that is already loaded."""

import ctypes
import os
import platform
import sys

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_ADDR_NO_RANDOMIZE = 0x0040000
_KEEP_PERSONALITY = 0xFFFFFFFF

IS_LINUX = sys.platform == "linux"
MACHINE = platform.machine()

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int | ctypes.c_void_p = 0, third: int = 0) -> int:
    """prctl(2). Raises OSError."""
    arguments = [value if isinstance(value, ctypes.c_void_p) else ctypes.c_ulong(value), ctypes.c_ulong(third)]
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, *arguments, zero, zero), f"prctl {option}")


def syscall(number: int, *arguments: int | ctypes.c_void_p | None) -> int:
    """A system call by number. Raises OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *converted), f"system call {number}")


def unshare(flags: int) -> None:
    """unshare(2): move this process to new namespaces. Raises OSError."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def fix_addresses() -> bool:
    """Switch address-space randomization off for programs started from now on; False where that is forbidden."""
    current = _libc.personality(_KEEP_PERSONALITY)
    return current >= 0 and _libc.personality(current | _ADDR_NO_RANDOMIZE) >= 0


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_capabilities() -> None:
    """Give up every capability of this process. Raises OSError."""
    header = _CapabilityHeader(version=0x20080522, pid=0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(header), nothing), "capset")
