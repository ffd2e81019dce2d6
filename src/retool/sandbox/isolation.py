"""Contains a zygote and its children with what the system offers, tests it, and says what is in force.

Everything that lasts is done once, in the zygote; a child only takes away what the zygote needs for forking.
"""

import _socket
import functools
import os
import resource
import signal
import site
import sys
from collections.abc import Callable
from typing import Any

from retool.sandbox import landlock, linux, seccomp, syscalls

MIB = 1 << 20
_SANDBOX_UID = 65533
"""Whom a sandbox started by root becomes. No account has this number, so nothing is owned by it."""

_NAMESPACES = {"network": linux.CLONE_NEWNET, "ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}
_SYSTEM_FILES = ("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero")

_THREAD_STACK_BYTES = 8 * MIB
_OPEN_FILES = 64
_ANY_PID = 0x7EDCBA98  # larger than any pid, and no other operand of the filter
_FORBIDDEN = {"files": 1, "network": 2, "processes": 4, "signals": 8}
"""What a contained process must not reach, and the bits by which the self-test reports that it cannot."""


def keep_runtime_path() -> None:
    """Leave on `sys.path` only what belongs to the interpreter, so that code sees libraries and no project files."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    own = [os.path.join(prefix, "") for prefix in prefixes]
    if site.ENABLE_USER_SITE:
        own.append(site.getusersitepackages())
    sys.path[:] = [entry for entry in sys.path if entry.startswith(tuple(own))]


def contain() -> dict[str, Any]:
    """Contain this process (single-threaded, trusted, about to fork untrusted children) for good.

    Returns what is in force as a JSON object. `weak` says in a sentence what is missing for running code that nobody
    has read, and is None when nothing is; it comes from a forked child that tried what must fail.
    """
    isolation: dict[str, Any] = {"platform": f"{sys.platform} {linux.MACHINE}", "uid": os.getuid()}
    readable = _runtime_paths()
    if linux.IS_LINUX:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        isolation["namespaces"] = _enter_namespaces()
        isolation["uid"] = _become_nobody(readable)
        linux.drop_capabilities()
        isolation["landlock"] = landlock.restrict(readable, writable=["/dev/null"]) if landlock.abi() else 0
        isolation["seccomp"] = _install_allowlist()
    isolation["refused"] = _self_test(isolation.get("seccomp", False))
    isolation["weak"] = _weakness(isolation)
    return isolation


def limit_resources(cpu_seconds: float, address_space: int) -> None:
    """Lower this process's limits. The CPU limit is a backstop: the supervisor's clock comes first."""
    _lower(resource.RLIMIT_CPU, int(cpu_seconds) + 2)
    if linux.IS_LINUX:
        _lower(resource.RLIMIT_AS, address_space)
    _lower(resource.RLIMIT_STACK, _THREAD_STACK_BYTES)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def lock_child(parent: int, filtered: bool) -> None:
    """The last step before untrusted code: die with `parent`, and (`filtered`) give up all set-up calls."""
    if not linux.IS_LINUX:
        return
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    if filtered:
        seccomp.install(_lock_of(os.getpid()))


def _lock_of(pid: int) -> bytes:
    """The assembled filter of child `pid`; all but the number is prepared before the fork."""
    return _lock_template().replace(_ANY_PID.to_bytes(4, sys.byteorder), pid.to_bytes(4, sys.byteorder))


@functools.cache
def _lock_template() -> bytes:
    return seccomp.assemble(seccomp.lock(linux.MACHINE, _ANY_PID))


def describe_isolation(isolation: dict[str, Any]) -> str:
    """One line for people about `Sandbox.isolation`."""
    parts = [f"platform {isolation['platform']}"]
    if isolation.get("seccomp"):
        parts.append("seccomp")
    if isolation.get("landlock"):
        parts.append(f"Landlock {isolation['landlock']}")
    if isolation.get("namespaces"):
        parts.append(f"own {', '.join(isolation['namespaces'])} namespaces")
    parts.append(f"uid {isolation['uid']}")
    if isolation.get("fixed_addresses"):
        parts.append("fixed addresses")
    text = "; ".join(parts)
    return f"{text}. WEAK: {isolation['weak']}" if isolation["weak"] else text


def _runtime_paths() -> list[str]:
    """What code must be able to read: the standard library, installed packages, and the system's shared libraries."""
    paths = {os.path.dirname(os.__file__), *sys.path, *_SYSTEM_FILES}
    if linux.IS_LINUX:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            mapped = [line.split(maxsplit=5)[5].strip() for line in maps if "/" in line]
        paths |= {os.path.dirname(path) for path in mapped if ".so" in os.path.basename(path)}
    return sorted(paths)


def _enter_namespaces() -> list[str]:
    """Move to empty network, IPC and host-name namespaces, through a user namespace if need be. Returns their names."""
    for enter in (_enter_directly, _enter_through_user_namespace):
        if _succeeds_in_a_fork(enter):
            enter()
            return sorted(_NAMESPACES)
    return []


def _enter_directly() -> None:
    linux.unshare(sum(_NAMESPACES.values()))


def _enter_through_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # otherwise the files below belong to root
    linux.unshare(sum(_NAMESPACES.values()) | linux.CLONE_NEWUSER)
    for name, line in {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _become_nobody(readable: list[str]) -> int:
    """If this is root: become the sandbox's own uid, provided that it can read the runtime. Returns the uid in force.

    It cannot when the interpreter lives in root's home; then capabilities are dropped and Landlock decides alone.
    """

    def read_as_nobody() -> None:
        _switch_user()
        for path in readable:
            if os.path.isdir(path):
                os.listdir(path)
        with open(os.__file__, "rb") as file:
            file.read(1)

    if os.getuid() == 0 and _succeeds_in_a_fork(read_as_nobody):
        _switch_user()
    return os.getuid()


def _succeeds_in_a_fork(action: Callable[[], None]) -> bool:
    """Try in a forked process what cannot be taken back."""
    attempt = os.fork()
    if attempt == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(attempt, 0)[1] == 0


def _switch_user() -> None:
    os.setgroups([])
    os.setresgid(_SANDBOX_UID, _SANDBOX_UID, _SANDBOX_UID)
    os.setresuid(_SANDBOX_UID, _SANDBOX_UID, _SANDBOX_UID)


def _install_allowlist() -> bool:
    if linux.MACHINE not in syscalls.NUMBERS:
        return False
    try:
        seccomp.install(seccomp.assemble(seccomp.allowlist(linux.MACHINE)))
    except OSError:
        return False
    return True


def _self_test(filtered: bool) -> list[str]:
    """Fork a child, lock it like any other, and return the names of what it was refused."""
    parent = os.getpid()
    if filtered:
        _lock_template()  # prepared here, inherited by every child
    child = os.fork()
    if child == 0:
        refused = 0  # nothing is known to be refused, should this fail
        try:
            lock_child(parent, filtered)
            refused = sum(bit for name, bit in _FORBIDDEN.items() if not _can_reach(name, parent))
        finally:
            os._exit(refused)
    status = os.waitpid(child, 0)[1]
    refused = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    return [name for name, bit in _FORBIDDEN.items() if refused & bit]


def _can_reach(what: str, parent: int) -> bool:
    try:
        if what == "files":
            os.listdir("/")
        elif what == "network":
            _socket.socket()
        elif what == "processes":
            if os.fork() == 0:
                os._exit(0)
        elif what == "signals":
            os.kill(parent, 0)
    except PermissionError:
        return False
    return True


def _weakness(isolation: dict[str, Any]) -> str | None:
    reachable = [name for name in _FORBIDDEN if name not in isolation["refused"]]
    if not reachable:
        return None
    missing = [name for name in ("seccomp", "landlock") if not isolation.get(name)]
    cause = f"this system offers no {' and no '.join(missing)}" if missing else "the kernel's limits do not take effect"
    return f"code could reach {', '.join(reachable)} outside of the sandbox, because {cause}"


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
