"""Which rows of the cache a decode step reads together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retool.sampling.stretches import plan_reads, round_up

CAPACITY = 1000


@given(
    st.dictionaries(st.integers(0, 99), st.integers(1, CAPACITY), min_size=1, max_size=40),
    st.integers(0, 100_000),
)
def test_reads_cover_each_row_once_as_far_as_it_is_long_and_cost_no_more_than_one_each(
    lengths: dict[int, int], cells_per_read: int
) -> None:
    rows = sorted(lengths)
    reads = plan_reads(rows, [lengths[row] for row in rows], CAPACITY, cells_per_read)
    assert [read.first for read in reads] == [0, *(read.last for read in reads[:-1])]
    assert reads[-1].last == len(rows)
    for read in reads:
        covered = rows[read.first : read.last]
        assert (read.start, read.stop) == (covered[0], covered[-1] + 1)
        assert read.span >= max(lengths[row] for row in covered)
    cost = sum(read.cells + cells_per_read for read in reads)
    assert cost <= sum(round_up(length, CAPACITY) + cells_per_read for length in lengths.values())


def test_short_rows_share_a_read_and_one_long_row_is_read_by_itself() -> None:
    reads = plan_reads(range(4), [60, 60, 900, 60], CAPACITY, cells_per_read=100)
    assert [(read.start, read.stop, read.span) for read in reads] == [(0, 2, 64), (2, 3, 960), (3, 4, 64)]


def test_where_reads_are_dear_there_is_one() -> None:
    assert len(plan_reads([0, 5, 9], [10, 200, 900], CAPACITY, cells_per_read=10**6)) == 1
