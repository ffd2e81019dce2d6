"""One sandbox for all tests of the folder, with short limits, and a look at what is left of it afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from retool.sandbox import Sandbox, SandboxConfig

SHORT = SandboxConfig(cpu_seconds=0.5, idle_seconds=0.5, wall_seconds=30.0, memory_mib=256, workers=2)


def descendants(pid: int) -> set[int]:
    """The processes that `pid` and its descendants have started and that still exist."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        children = parents.get(unseen.pop(), [])
        found.update(children)
        unseen += children
    return found


def open_descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    with Sandbox(SHORT) as sandbox:
        yield sandbox
