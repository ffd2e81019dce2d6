"""Sandboxes for all tests of the folder, with short limits, and a look after each test at what is left of it."""

import gc
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import pytest
from processes import children, eventually, is_at_rest, open_descriptors, supervisor_of
from profiles import PROFILES, Profile

from retool.sandbox import Sandbox, SandboxConfig, connection

SHORT = SandboxConfig(cpu_seconds=0.5, idle_seconds=0.5, wall_seconds=30.0, memory_mib=256, workers=2)

MARK = "retool-abuse"
"""In the name of whatever hostile code tries to make."""

_FIRST_UID_OF_A_SLOT = 0x7F000000
_SHARED_FOLDERS = (tempfile.gettempdir(), "/dev/shm", "/")
_NOT_TO_BE_CHANGED = (os.__file__, os.path.dirname(os.__file__), "/etc/passwd", "/dev/null")


class World(NamedTuple):
    """What no execution may change."""

    descriptors: int
    """That this process has open."""

    supervisor_descriptors: int
    supervisor: int | None
    processes: set[int]
    """Of the sandbox, the zygotes; without one, what this process has started."""

    files: list[tuple[int, ...]]
    """Inode, mode, owner, links, and for what is not a device size and time of the last change."""

    traces: list[str]

    @classmethod
    def look(cls, box: Sandbox | None) -> Self:
        supervisor = supervisor_of(box) if box else None
        of_supervisor = open_descriptors(supervisor) if supervisor else 0
        processes, files = children(supervisor or os.getpid()), [_state(path) for path in _NOT_TO_BE_CHANGED]
        return cls(open_descriptors(), of_supervisor, supervisor, processes, files, _traces())


def _state(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    state = (status.st_ino, status.st_mode, status.st_uid, status.st_nlink)
    return state if stat.S_ISCHR(status.st_mode) else (*state, status.st_size, status.st_mtime_ns)


def _traces() -> list[str]:
    """What code has left in the folders that everybody shares: others use them too, so the owner or the name tells."""
    found = []
    for folder in filter(os.path.isdir, _SHARED_FOLDERS):
        for entry in os.scandir(folder):
            try:
                owner = entry.stat(follow_symlinks=False).st_uid
            except FileNotFoundError:
                continue
            if MARK in entry.name or owner >= _FIRST_UID_OF_A_SLOT:
                found.append(entry.path)
    return found


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    """A sandbox as strong as this machine permits, with all that it keeps for SymPy started."""
    with Sandbox(SHORT) as sandbox:
        sandbox.run_blocking("import math")
        sandbox.run_blocking("import sympy")
        yield sandbox


@contextmanager
def sandbox_in(profile: Profile, config: SandboxConfig = SHORT) -> Iterator[Sandbox]:
    """A sandbox where `profile` says. Skips the test where this machine cannot play that place."""
    if reason := profile.missing():
        pytest.skip(reason)
    sandbox = Sandbox(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_SUPERVISOR_COMMAND", profile.command)
        sandbox.start()
    with sandbox:
        sandbox.run_blocking("import math")  # so that the children which a zygote forks for nothing at first are gone
        yield sandbox


@pytest.fixture(scope="session", params=PROFILES)
def contained(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox in each of the places where one has to live. It has not been used for SymPy."""
    with sandbox_in(PROFILES[request.param]) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def untouched(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: the same files, descriptors and processes as before, and a sandbox that works."""
    shared = {"box", "contained"} & set(request.fixturenames)
    box = request.getfixturevalue(shared.pop()) if shared else None
    assert box is None or eventually(lambda: is_at_rest(box))
    before = World.look(box)
    yield
    if box:
        assert box.run_blocking("print('well')").text == "well"
        assert eventually(lambda: is_at_rest(box)), "a process was left behind"
    if not eventually(lambda: _is_as_good(World.look(box), before), seconds=0.5):
        gc.collect()  # what a test has let go of, but not closed
        assert eventually(lambda: _is_as_good(World.look(box), before)), f"{before} became {World.look(box)}"


def _is_as_good(now: World, before: World) -> bool:
    """Descriptors may be less: one that was about to be closed may have been counted before."""
    return now[2:] == before[2:] and all(n <= most for n, most in zip(now[:2], before[:2], strict=True))
