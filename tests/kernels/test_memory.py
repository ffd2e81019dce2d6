"""What a process frees stays with it, once it has been told to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retool.kernels.memory import keep_freed_memory

PROGRAM = """
import resource, sys
from retool.kernels.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words: str) -> int:
    """Pages of 64 MiB that had to be found anew the second time."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing changes")
def test_a_large_block_that_was_freed_is_used_again() -> None:
    assert faults("keep") < 100
    assert faults("leave") > 1000


def test_where_the_c_library_cannot_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retool.kernels.memory.ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
