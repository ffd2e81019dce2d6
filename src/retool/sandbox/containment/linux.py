"""The Linux calls that Python's standard library does not offer, through the C library that is already loaded."""

import ctypes
import os
import platform
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
MNT_DETACH = 2

CAP_SETUID = 7

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_ADDR_NO_RANDOMIZE = 0x0040000
_KEEP_PERSONALITY = 0xFFFFFFFF
_MADV_POPULATE_WRITE, _MADV_COLLAPSE = 23, 25
_HUGE_PAGE = 2 << 20

IS_LINUX = sys.platform == "linux"
MACHINE = platform.machine()

_libc = ctypes.CDLL(None, use_errno=True)
_signal_set = ctypes.c_uint64 * 16  # sigset_t of the C library
_NO_SIGNALS = _signal_set()
_SIG_SETMASK = int(signal.SIG_SETMASK)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


if IS_LINUX:
    _libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2). Raises OSError."""
    return _checked(_libc.prctl(option, value, third, 0, 0), "prctl")


class SystemCall:
    """A system call by number, to be made later: that is quicker, and touches less memory, than to do all at once."""

    def __init__(self, number: int, *arguments: int | ctypes.c_void_p | None) -> None:
        self._arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in (number, *arguments)]

    def make(self) -> int:
        """Raises OSError."""
        return _checked(_libc.syscall(*self._arguments), "a system call")


def syscall(number: int, *arguments: int | ctypes.c_void_p | None) -> int:
    """A system call by number. Raises OSError."""
    return SystemCall(number, *arguments).make()


def unshare(flags: int) -> None:
    """unshare(2): move this process (for PID namespaces: its future children) to new namespaces. Raises OSError."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    source_, target_, kind_, options_ = encoded
    _checked(_libc.mount(source_, target_, kind_, ctypes.c_ulong(flags), options_), f"mount {target}")


def enter_root(path: str) -> None:
    """Make the mount point `path` the root of this mount namespace and detach the old root. Raises OSError."""
    os.chdir(path)
    _checked(_libc.syscall(ctypes.c_long(_PIVOT_ROOT[MACHINE]), b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def has_process_descriptors() -> bool:
    """Whether processes can be held by a descriptor (pidfd, Linux 5.3); user-space kernels may lack it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def descriptor_of_ended_children() -> int:
    """A descriptor that is readable when a child has ended: signalfd(2). Blocks SIGCHLD here and in forks."""
    signals = _signal_set(1 << (signal.SIGCHLD - 1))
    _checked(_libc.sigprocmask(signal.SIG_BLOCK, signals, None), "sigprocmask")
    return _checked(_libc.signalfd(-1, signals, os.O_CLOEXEC), "signalfd")


def unblock_signals() -> None:
    """Undo the above in a fork. (The standard library's own call makes enumerations of its result: too slow here.)"""
    _libc.sigprocmask(_SIG_SETMASK, _NO_SIGNALS, None)


def fix_addresses() -> bool:
    """Switch address-space randomization off for programs started from now on; False where that is forbidden."""
    current = _libc.personality(_KEEP_PERSONALITY)
    return current >= 0 and _libc.personality(current | _ADDR_NO_RANDOMIZE) >= 0


def collapse_heap() -> None:
    """Back this process's private memory by huge pages where the kernel can (Linux 6.1): a fork copies fewer entries.

    Only speed depends on it, so a kernel that cannot is not an error.
    """
    with open("/proc/self/maps") as maps:
        mappings = [line.split(maxsplit=5) for line in maps]
    for addresses, permissions, _, _, inode, *name in mappings:
        if inode != "0" or not permissions.startswith("rw") or (name and name[0].startswith("[stack")):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        start, end = -(-start // _HUGE_PAGE) * _HUGE_PAGE, end // _HUGE_PAGE * _HUGE_PAGE
        for address in range(start, end, _HUGE_PAGE):
            _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(_HUGE_PAGE), _MADV_COLLAPSE)


def populate(start: ctypes.c_void_p, size: ctypes.c_size_t) -> None:
    """Have pages copied as if they were written to now (Linux 5.14). Only speed depends on it."""
    _libc.madvise(start, size, _MADV_POPULATE_WRITE)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def keep_capabilities(*kept: int) -> None:
    """Give up every capability of this process but `kept` (numbers below 32, which it must have). Raises OSError."""
    header = _CapabilityHeader(version=0x20080522, pid=0)
    low = sum(1 << capability for capability in kept)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(low, low)
    _checked(_libc.capset(ctypes.byref(header), effective_permitted_inheritable), "capset")
