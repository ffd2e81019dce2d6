"""How a process that computes on a CPU gets its memory.

glibc gives large blocks back to the system as soon as they are freed, and the kernel hands them out again page by
page, each cleared: in an update of a small model that is a fifth of the time (benchmarks/page_faults.py).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER = -1
_GROWTH = 64 << 20  # bytes that are asked of the system at a time


def keep_freed_memory() -> bool:
    """From now on blocks that are freed stay with the process, and the next ones are cut from them: its memory does not
    shrink below its peak. True if the C library is one that can do this; elsewhere nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROWTH), (_M_MMAP_MAX, 0))
    return all(mallopt(option, value) == 1 for option, value in settings)
