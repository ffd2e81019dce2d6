"""Looks at processes from outside, through /proc."""

import os
import time
from collections.abc import Callable

from retool.sandbox import Sandbox

_HANDLE, _LISTENER = "anon_inode:[pidfd]", "anon_inode:seccomp notify"


def descendants(pid: int) -> set[int]:
    """The processes that `pid` and its descendants have started and that still exist."""
    return set(_family(pid))


def children(pid: int) -> set[int]:
    """Those that `pid` has started itself, or taken over."""
    return {child for child, parent in _family(pid).items() if parent == pid}


def _family(pid: int) -> dict[int, int]:
    """The descendants of `pid`, each with its parent."""
    children_of: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            children_of.setdefault(parent_of(int(name)), []).append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: dict[int, int] = {}
    unseen = [pid]
    while unseen:
        parent = unseen.pop()
        found |= dict.fromkeys(children_of.get(parent, []), parent)
        unseen += children_of.get(parent, [])
    return found


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def exists(pid: int) -> bool:
    """Whether `pid` still runs; one that has ended and waits to be collected by process 1 does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def supervisor_of(box: Sandbox) -> int:
    return box._connection._process.pid


def zygotes_of(box: Sandbox) -> list[int]:
    return sorted(children(supervisor_of(box)))


def own_descendants(box: Sandbox) -> set[int]:
    """Every process of the sandbox, its supervisor included."""
    supervisor = supervisor_of(box)
    return {supervisor, *descendants(supervisor)}


def children_in_waiting(box: Sandbox) -> int:
    """How many children each zygote of `box` (of at most 8 workers) keeps ready."""
    return min(box.workers, len(os.sched_getaffinity(0)))


def is_at_rest(box: Sandbox) -> bool:
    """Whether nothing is left of `box` but supervisor, zygotes, and the children that these keep ready."""
    supervisor = supervisor_of(box)
    family = _family(supervisor)
    zygotes = [pid for pid, parent in family.items() if parent == supervisor]
    others = family.keys() - zygotes
    if any(family[pid] not in zygotes for pid in others):
        return False
    open_there = [os.readlink(f"/proc/{supervisor}/fd/{fd}") for fd in os.listdir(f"/proc/{supervisor}/fd")]
    # Where the kernel does not offer the one or the other, there are none. The client has a handle, too.
    all_are_known = open_there.count(_HANDLE) in (0, len(others) + 1)
    all_are_locked = open_there.count(_LISTENER) in (0, len(others))
    return len(others) == len(zygotes) * children_in_waiting(box) and all_are_known and all_are_locked


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `condition` holds within `seconds`. A process that vanishes while it is looked at is not yet the end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return True
        except (FileNotFoundError, ProcessLookupError):
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
