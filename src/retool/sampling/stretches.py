"""How the rows of a decode step are read together: few reads, and little that is read for nothing.

One read for all rows costs as much as if each were as long as the longest; a read for each row costs a fixed time for
each. Neighbours of like length share a read, and rows that take no part are passed over where that pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SPAN_BUCKET = 64
"""Spans are rounded up to multiples of this, so that a plan holds for many steps."""


_LINE = 64  # bytes of memory


class Read(NamedTuple):
    """Rows `start` to `stop` of the cache up to position `span`: number `first` to `last` of the step's rows."""

    start: int
    stop: int
    span: int
    first: int
    last: int

    @property
    def cells(self) -> int:
        return (self.stop - self.start) * self.span


def plan_reads(rows: Sequence[int], lengths: Sequence[int], capacity: int, cells_per_read: int) -> list[Read]:
    """Reads that cover `rows` (ascending), of which each needs `lengths` positions.

    `cells_per_read` is what a read costs by itself, in cells (positions of a row) that could be read in that time.
    Neighbours are joined from the left as long as that costs less: not always the best plan, but one made in no time.
    """
    reads: list[Read] = []
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        reads.append(Read(row, row + 1, round_up(length, capacity), number, number + 1))
        while len(reads) > 1:
            left, right = reads[-2:]
            joined = Read(left.start, right.stop, max(left.span, right.span), left.first, right.last)
            if joined.cells > left.cells + right.cells + cells_per_read:
                break
            reads[-2:] = [joined]
    return reads


def round_up(length: int, capacity: int) -> int:
    """`length` in whole buckets, but not beyond `capacity`."""
    return min(capacity, -(-length // SPAN_BUCKET) * SPAN_BUCKET)


def cells(capacity: int, width: int) -> int:
    """Positions of a row that holds `capacity` tokens in values of `width` bytes: one more, a scratch cell, and as many
    as fill up a line of memory. Matrices that begin with a line are multiplied alike, to the last bit, whichever row
    they are."""
    in_a_line = _LINE // width
    return (capacity // in_a_line + 1) * in_a_line
