"""The order in which a run goes through its data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retool.stages.training.passes import draw_in_passes


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 100))
def test_each_pass_has_each_item_once(size: int, count: int, seed: int) -> None:
    steps = [draw_in_passes(range(size), count, seed, step) for step in range(3 * size)]
    drawn = [item for step in steps for item in step]
    for begin in range(0, len(drawn) - size + 1, size):
        assert sorted(drawn[begin : begin + size]) == list(range(size))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 100), st.integers(0, 200))
def test_a_step_has_no_item_twice(count: int, more: int, seed: int, step: int) -> None:
    drawn = draw_in_passes(range(count + more - 1), count, seed, step)
    assert len(set(drawn)) == count


def test_passes_differ_from_each_other_and_from_those_of_another_seed() -> None:
    first, second = (draw_in_passes(range(20), 20, 0, step) for step in (0, 1))
    assert first != second and first != draw_in_passes(range(20), 20, 1, 0)
    assert first == draw_in_passes(range(20), 20, 0, 0)
