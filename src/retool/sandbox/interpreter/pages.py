"""Pages that a child will write to, made its own while it waits for its job.

Whatever a fork writes to, reference counts included, the kernel copies first, a page at a time: a quarter of the time
of a program that uses SymPy. So a zygote finds out by a sample which pages those are, and a child that has nothing to
do yet has them copied. Nothing in them changes by that, so a child with time and one without run a program alike.
"""

import ctypes
import gc
import os
import struct
from collections.abc import Callable, Iterator

from retool.sandbox.containment import linux

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LARGEST_HOLE = 1  # pages between two that are written to; shorter than a call for each of them
_RANGE = struct.Struct("=QQ")

# /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst
_ENTRY = struct.Struct("=Q")
_PRESENT, _OF_A_FILE, _OWN = 1 << 63, 1 << 61, 1 << 56

_written: list[tuple[ctypes.c_void_p, ctypes.c_size_t]] = []


def learn(run: Callable[[], object]) -> None:
    """Find out, in a fork, to which pages `run` writes. Where the system does not tell, nothing is learnt."""
    near, far = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            gc.enable()
            run()
            ranges = b"".join(_RANGE.pack(*ends) for ends in _ranges(_own_pages()))
            while ranges:
                ranges = ranges[os.write(far, ranges) :]
        except OSError:
            os._exit(1)  # no pagemap, or not for this user
        finally:
            os._exit(0)
    os.close(far)
    with open(near, "rb") as answer:
        ranges = answer.read()
    os.waitpid(fork, 0)
    _written.extend((ctypes.c_void_p(start), ctypes.c_size_t(end - start)) for start, end in _RANGE.iter_unpack(ranges))


def make_own(everything: bool) -> None:
    """Have the pages copied; or the first ones only, so that what happens next finds the same memory either way."""
    for start, size in _written if everything else _written[:1]:
        linux.populate(start, size)


def _own_pages() -> Iterator[int]:
    """The addresses of this process's pages that it shares with nobody."""
    with open("/proc/self/maps") as maps:
        mappings = [line.split(maxsplit=5) for line in maps]
    with open("/proc/self/pagemap", "rb") as pagemap:
        for addresses, permissions, _, _, _, *name in mappings:
            if permissions != "rw-p" or (name and name[0].startswith("[stack")):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            pagemap.seek(start // _PAGE * _ENTRY.size)
            entries = _ENTRY.iter_unpack(pagemap.read((end - start) // _PAGE * _ENTRY.size))
            for place, (entry,) in enumerate(entries):
                if entry & _PRESENT and entry & _OWN and not entry & _OF_A_FILE:
                    yield start + place * _PAGE


def _ranges(pages: Iterator[int]) -> list[list[int]]:
    """Start and end of runs of `pages`, which come in order."""
    ranges: list[list[int]] = []
    for page in pages:
        if ranges and page - ranges[-1][1] <= _LARGEST_HOLE * _PAGE:
            ranges[-1][1] = page + _PAGE
        else:
            ranges.append([page, page + _PAGE])
    return ranges
