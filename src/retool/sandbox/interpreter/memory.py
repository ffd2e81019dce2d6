"""Lets every child allocate the same addresses: what the code allocates then has the address that it had before.

CPython keeps small objects of equal size in pools, and gives out first what was freed last. A zygote that has worked
for a while has gaps in many pools, and in which order it freed the last ones depends on what it did. So it fills its
gaps once, before it serves: from then on it works in a few fresh pools, one for each size. A child takes the few gaps
that there can be in these, and goes on where nothing was ever allocated. That its objects lie close together, in pages
that it shares with nobody, makes it faster, too.
"""

from typing import Any

_POOL_BYTES = 16 << 10
_POOL_HEADER_BYTES = 48
_BLOCK_SIZES = range(16, 513, 16)
_MOST_TO_FILL_BYTES = 4 << 20  # of each size; only a bound should an interpreter lay out its pools differently
_AT_ONCE = 32
_TAKEN_BY_THE_ACCOUNT = 8  # numbers that the account of what was filled holds itself

_SIZES_IN_USE = (*range(16, 129, 16), 176)
"""What a zygote that serves allocates: small objects, and the kernel's account of a child."""

_GAPS = 2
"""As many blocks of one size as the zygote may have freed between two forks."""

_held: list[object] = []
_taken: list[object] = []


def fill_gaps() -> None:
    """Allocate, for good, all free blocks of small memory in pools that are in use."""
    for size in _BLOCK_SIZES:
        in_a_pool = (_POOL_BYTES - _POOL_HEADER_BYTES) // size
        taken: dict[int, int] = {}  # blocks of each pool
        _held.append(taken)
        for _ in range(_MOST_TO_FILL_BYTES // (size * _AT_ONCE)):
            blocks = [_block(size) for _ in range(_AT_ONCE)]  # before their addresses, which are blocks themselves
            _held.extend(blocks)
            for block in blocks:
                pool = id(block) // _POOL_BYTES
                taken[pool] = taken.get(pool, 0) + 1
            if max(taken.values()) >= in_a_pool - _TAKEN_BY_THE_ACCOUNT:
                break  # a whole pool was free, and such a one is only begun when there are no gaps left


def take_recent_gaps() -> None:
    """Allocate, for good, the blocks that the zygote may have freed since its gaps were filled."""
    for size in _SIZES_IN_USE:
        _taken.append([_block(size) for _ in range(_GAPS)])
    _taken.append([(None,) * length for length in range(1, 20) for _ in range(_GAPS)])
    _taken.append([0.5 * number for number in range(6 * _GAPS)])
    _taken.append([({}, []) for _ in range(_GAPS)])


def _block(size: int) -> Any:
    """An object that takes a block of `size` bytes."""
    if size == 16:
        return object()
    if size == 32:
        return 1.0 * (size << 20)
    return bytes(size - 33)
