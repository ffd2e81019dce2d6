"""A zygote's own view of the system: empty network, no other processes, and a root with the runtime in it only.

Everything here is done once a zygote, before it forks its first child, and costs an execution nothing.
"""

import os
from collections.abc import Callable, Iterable

from retool.sandbox.containment import linux

_EMPTY = {"network": linux.CLONE_NEWNET, "ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}
_ALL = _EMPTY | {"mount": linux.CLONE_NEWNS, "pid": linux.CLONE_NEWPID}

_MOUNT_POINTS = ("/tmp", "/mnt", "/media", "/srv", "/opt", "/home")
_SCRATCH = "/scratch"
_SCRATCH_OPTIONS = "size=16m,nr_inodes=1k,mode=700"
_ROOT_OPTIONS = "size=1m,mode=755"


def enter(succeed: Callable[[int], None]) -> list[str]:
    """Move to as many new namespaces as the system permits, and return their names.

    Where a PID namespace is among them, the process that returns is a fork, the first of that namespace. The one that
    called has ended after `succeed(pid of the fork)`, and the fork has called `succeed(0)`. When the first process
    dies, so do all in the namespace.
    """
    # The supervisor knows processes in another PID namespace by descriptors only.
    for names in (_ALL, _EMPTY) if linux.has_process_descriptors() else (_EMPTY,):
        for user in (False, True):
            if succeeds_in_a_fork(lambda names=names, user=user: _unshare(names, user)):
                _unshare(names, user)
                if "pid" in names:
                    _become_first(succeed)
                return sorted([*names, *(["user"] if user else [])])
    return []


def succeeds_in_a_fork(action: Callable[[], object]) -> bool:
    """Try in a forked process what cannot be taken back."""
    attempt = os.fork()
    if attempt == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(attempt, 0)[1] == 0


def can_have_private_root(readable: Iterable[str]) -> bool:
    """Whether the system permits the mounts of `enter_private_root`; tried in a mount namespace of a fork's own."""

    def attempt() -> None:
        linux.unshare(linux.CLONE_NEWNS)
        enter_private_root(readable, 1)

    return succeeds_in_a_fork(attempt)


def enter_private_root(readable: Iterable[str], slots: int) -> list[str]:
    """Make a root that holds only `readable`, read-only, and one scratch folder in memory for each of `slots`.

    Needs a mount namespace. Returns the paths of the scratch folders, of 16 MiB each; they have names that cannot be
    guessed, so that knowing one's own does not lead to another. Raises OSError.
    """
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    paths = [path for path in _outermost(readable) if os.path.exists(path)]
    base = next(p for p in _MOUNT_POINTS if os.path.isdir(p) and not any(_is_within(path, p) for path in paths))
    links = {entry: os.readlink(f"/{entry}") for entry in os.listdir("/") if os.path.islink(f"/{entry}")}
    linux.mount("retool", base, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, _ROOT_OPTIONS)
    for path in paths:
        _bind(path, base + path)
    for entry, target in links.items():
        if not os.path.lexists(f"{base}/{entry}"):
            os.symlink(target, f"{base}/{entry}")
    scratch = [f"{_SCRATCH}/{os.urandom(16).hex()}" for _ in range(slots)]
    for folder in scratch:
        os.makedirs(base + folder)
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("retool", base + folder, "tmpfs", flags, _SCRATCH_OPTIONS)
    os.chmod(base + _SCRATCH, 0o111)
    linux.enter_root(base)
    linux.mount(None, "/", None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV)
    return scratch


def _unshare(names: dict[str, int], through_user_namespace: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    if not through_user_namespace:
        linux.unshare(sum(names.values()))
        return
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # otherwise the files below belong to root
    linux.unshare(sum(names.values()) | linux.CLONE_NEWUSER)
    for name, line in {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _become_first(succeed: Callable[[int], None]) -> None:
    """Go on as the first process of the PID namespace; the one that made it ends."""
    first = os.fork()
    succeed(first)
    if first:
        os._exit(0)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    linux.mount(source, target, None, linux.MS_BIND)
    # A mount from outside of a user namespace keeps the restrictions that it has; they must be repeated.
    kept = os.statvfs(target).f_flag & (linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    atime = os.statvfs(target).f_flag & (os.ST_NOATIME | os.ST_NODIRATIME | os.ST_RELATIME)
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | kept
    linux.mount(None, target, None, flags | _atime_flags(atime))


def _atime_flags(status: int) -> int:
    """The flags of mount(2) for the flags of statvfs(3)."""
    pairs = {os.ST_NOATIME: 1 << 10, os.ST_NODIRATIME: 1 << 11, os.ST_RELATIME: 1 << 21}
    return sum(flag for bit, flag in pairs.items() if status & bit)


def _outermost(paths: Iterable[str]) -> list[str]:
    """`paths` without those that lie within another one of them."""
    kept: list[str] = []
    for path in sorted(os.path.normpath(path) for path in paths):
        if not any(_is_within(path, other) for other in kept):
            kept.append(path)
    return kept


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
