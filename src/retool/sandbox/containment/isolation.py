"""Contains a zygote and its children with what the system offers, tests it, and says what is in force.

Everything that lasts is done once, in the zygote; a child only takes away what the zygote needs for forking.
"""

import _socket
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from retool.sandbox.containment import landlock, linux, namespaces, seccomp, syscalls

MIB = 1 << 20
_FIRST_UID = 0x7F000000
"""The sandbox of root runs each slot's code under a uid of its own, from this one. No account has these numbers."""

_SYSTEM_FILES = ("/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

_THREAD_STACK_BYTES = 8 * MIB
_OPEN_FILES = 64
_THREADS = 128
_FORBIDDEN = {"files": 1, "network": 2, "processes": 4, "signals": 8}
"""What a contained process must not reach, and the bits by which the self-test reports that it cannot."""


class Cell(NamedTuple):
    """What the children of a contained zygote are locked with, prepared before the first fork."""

    report: dict[str, Any]
    """What is in force, as a JSON object. `weak` says in a sentence what is missing for running code that nobody has
    read, and is None when nothing is; it comes from a forked child that tried what must fail."""

    filter: seccomp.Lock | None
    session_filter: seccomp.Filter | None
    scratch: list[str]
    """A folder for each slot; empty where there is no room of one's own to write in."""

    first_uid: int | None
    """The uid of slot 0, if each slot has one of its own."""

    first_process: bool
    """Whether this process is the first of a PID namespace, with which its children die."""


def contain(entered: list[str], slots: int) -> Cell:
    """Contain this process (single-threaded, trusted, about to fork untrusted children) for good.

    `entered` are the namespaces it is in already, `slots` the number of children that there may be at once.
    """
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    readable = _runtime_paths()
    scratch: list[str] = []
    if "mount" in entered:
        visible = [*readable, *_DEVICES]
        if namespaces.can_have_private_root(visible):
            scratch = namespaces.enter_private_root(visible, slots)
    own_uids = os.getuid() == 0 and namespaces.succeeds_in_a_fork(lambda: _try_as_nobody(readable))
    if own_uids:
        for slot, folder in enumerate(scratch):
            os.chown(folder, _FIRST_UID + slot, _FIRST_UID)
        os.setgroups(())
        os.setresgid(_FIRST_UID, _FIRST_UID, _FIRST_UID)
        _lower(resource.RLIMIT_NPROC, _THREADS)
    linux.keep_capabilities(*((linux.CAP_SETUID,) if own_uids else ()))
    _lower(resource.RLIMIT_STACK, _THREAD_STACK_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    if not scratch:
        _lower(resource.RLIMIT_FSIZE, 0)
    report = {
        "platform": f"{sys.platform} {linux.MACHINE}",
        "uid": "one for each slot" if own_uids else os.getuid(),
        "namespaces": entered,
        "private_root": bool(scratch),
        "landlock": _restrict_files(readable, scratch),
        "seccomp": _install_allowlist(),
    }
    lock = seccomp.Lock(linux.MACHINE, asks_to_exit=False) if report["seccomp"] else None
    session_lock = seccomp.Filter(linux.MACHINE, seccomp.session_lock(linux.MACHINE)) if report["seccomp"] else None
    cell = Cell(report, lock, session_lock, scratch, _FIRST_UID if own_uids else None, "pid" in entered)
    report["refused"] = _self_test(cell)
    report["weak"] = _weakness(report)
    if report["seccomp"] and namespaces.succeeds_in_a_fork(_have_questions_asked):
        cell = cell._replace(filter=seccomp.Lock(linux.MACHINE, asks_to_exit=True))
    return cell


def lock_child(cell: Cell, slot: int, parent: int) -> int | None:
    """The last step of a child of `parent` before it may touch untrusted code: become its slot's own, then lock up.

    Returns the descriptor on which the child will ask to exit, if it will.
    """
    _settle(cell, slot, parent)
    return cell.filter.install_for(os.getpid()) if cell.filter else None


def lock_session(cell: Cell, slot: int, parent: int) -> int:
    """The same for the first process of a session; returns the descriptor by which its supervisor is asked.

    Raises OSError where the kernel cannot ask (before Linux 5.5, or in another kernel's guise).
    """
    _settle(cell, slot, parent)
    if not cell.session_filter:
        raise OSError("sessions need seccomp")
    return cell.session_filter.install_with_listener()


def _settle(cell: Cell, slot: int, parent: int) -> None:
    if cell.first_uid is not None:
        uid = cell.first_uid + slot
        os.setresuid(uid, uid, uid)
    if cell.scratch:
        os.chdir(cell.scratch[slot])
        if os.listdir():
            _empty_this_folder()
    if not cell.first_process:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def limit_execution(cpu_seconds: float, address_space: int) -> None:
    """Lower the limits of one execution. The CPU limit is a backstop: the supervisor's clock comes first.

    The limit of open files comes as late as this because it is also that of descriptors on their way in messages.
    """
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CPU, int(cpu_seconds) + 2)
    _lower(resource.RLIMIT_AS, address_space)


def describe_isolation(isolation: dict[str, Any]) -> str:
    """One line for people about `Sandbox.isolation`."""
    parts = [f"platform {isolation['platform']}"]
    if isolation.get("seccomp"):
        parts.append("seccomp")
    if isolation.get("landlock"):
        parts.append(f"Landlock {isolation['landlock']}")
    if isolation.get("namespaces"):
        parts.append(f"own {', '.join(isolation['namespaces'])} namespaces")
    if isolation.get("private_root"):
        parts.append("own root and scratch folders")
    parts.append(f"uid {isolation['uid']}")
    if isolation.get("fixed_addresses"):
        parts.append("fixed addresses")
    text = "; ".join(parts)
    return f"{text}. WEAK: {isolation['weak']}" if isolation["weak"] else text


def _runtime_paths() -> list[str]:
    """What code must be able to read: the standard library, installed packages, and the system's shared libraries."""
    paths = {os.path.dirname(os.__file__), *sys.path, *_SYSTEM_FILES}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        mapped = [line.split(maxsplit=5)[5].strip() for line in maps if "/" in line]
    paths |= {os.path.dirname(path) for path in mapped if ".so" in os.path.basename(path)}
    return sorted(paths)


def _try_as_nobody(readable: list[str]) -> None:
    """Raises OSError if a uid of the sandbox's own cannot read the runtime, say because it lives in root's home."""
    os.setgroups(())
    os.setresgid(_FIRST_UID, _FIRST_UID, _FIRST_UID)
    os.setresuid(_FIRST_UID, _FIRST_UID, _FIRST_UID)
    for path in readable:
        if os.path.isdir(path):
            os.listdir(path)
    with open(os.__file__, "rb") as file:
        file.read(1)


def _restrict_files(readable: list[str], scratch: list[str]) -> int:
    """Returns the ABI version of Landlock in force; 0 where there is none."""
    if not landlock.abi():
        return 0
    return landlock.restrict([*readable, *_DEVICES], writable=["/dev/null"], changeable=scratch)


def _install_allowlist() -> bool:
    if linux.MACHINE not in syscalls.NUMBERS:
        return False
    try:
        seccomp.Filter(linux.MACHINE, seccomp.allowlist(linux.MACHINE)).install()
    except OSError:
        return False
    return True


def _have_questions_asked() -> None:
    """Raises OSError where the kernel cannot (before Linux 5.5), or already does so for somebody else."""
    seccomp.Filter(linux.MACHINE, seccomp.nothing()).install_with_listener()


def _empty_this_folder() -> None:
    """Remove what an earlier execution left in its scratch folder, whatever it did to be in the way.

    Goes down by changing the directory, because a path through all levels may be longer than the system allows.
    """
    above: list[str] = []
    while True:
        folder = ""
        for entry in list(os.scandir()):
            if entry.is_dir(follow_symlinks=False):
                folder = entry.name
            else:
                os.unlink(entry.name)
        if folder:
            os.chmod(folder, 0o700)
            os.chdir(folder)
            above.append(folder)
        elif above:
            os.chdir(os.pardir)
            os.rmdir(above.pop())
        else:
            return


def _self_test(cell: Cell) -> list[str]:
    """Fork a child, lock it like any other, and return the names of what it was refused."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        refused = 0  # nothing is known to be refused, should this fail
        try:
            lock_child(cell, 0, parent)
            refused = sum(bit for name, bit in _FORBIDDEN.items() if not _ATTEMPTS[name](parent))
        finally:
            os._exit(refused)
    status = os.waitpid(child, 0)[1]
    refused = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    return [name for name, bit in _FORBIDDEN.items() if refused & bit]


def _can(action: Callable[..., object], *arguments: object) -> bool:
    try:
        action(*arguments)
    except OSError:
        return False
    return True


def _can_reach_files(_: int) -> bool:
    readable = any(_can(os.open, path, os.O_RDONLY) for path in ("/etc/passwd", "/proc/1/status", "/sys/kernel"))
    writable = any(_can(os.open, folder, os.O_TMPFILE | os.O_WRONLY) for folder in ("/", "/tmp", "/dev/shm"))
    return readable or writable


def _can_make_processes(_: int) -> bool:
    try:
        if os.fork() == 0:
            os._exit(0)
    except PermissionError:
        return False
    return True


_ATTEMPTS: dict[str, Callable[[int], bool]] = {
    "files": _can_reach_files,
    "network": lambda _: _can(_socket.socket),
    "processes": _can_make_processes,
    "signals": lambda parent: _can(os.kill, parent, 0),
}


def _weakness(report: dict[str, Any]) -> str | None:
    reachable = [name for name in _FORBIDDEN if name not in report["refused"]]
    if not reachable:
        return None
    missing = [
        name
        for name, present in {
            "seccomp": report["seccomp"],
            "Landlock": report["landlock"],
            "mount namespaces": report["private_root"],
        }.items()
        if not present
    ]
    cause = f"this system offers no {' and no '.join(missing)}" if missing else "the kernel's limits do not take effect"
    return f"code could reach {', '.join(reachable)} outside of the sandbox, because {cause}"


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
