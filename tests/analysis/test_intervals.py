"""Bootstrap intervals of ratios, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.analysis.intervals import Estimate, estimate


def share(successes: list[int], problems: list[str] | None = None) -> Estimate:
    numerators = np.array(successes, dtype=float)[:, None]
    names = problems or [str(index) for index in range(len(successes))]
    return estimate(numerators, np.ones_like(numerators), names)[0]


@pytest.mark.parametrize(("n", "p"), [(200, 0.5), (400, 0.2), (1000, 0.9)])
def test_the_interval_of_a_share_is_that_of_the_binomial(n: int, p: float) -> None:
    right = round(n * p)
    found = share([1] * right + [0] * (n - right))
    half = 1.96 * (p * (1 - p) / n) ** 0.5  # normal approximation
    assert found.value == p
    assert found.low == pytest.approx(p - half, abs=0.25 * half)
    assert found.high == pytest.approx(p + half, abs=0.25 * half)


def test_samples_of_a_problem_do_not_count_as_problems() -> None:
    once = share([1, 0] * 50)
    copied = share([1] * 10 * 50 + [0] * 10 * 50, [str(index // 10) for index in range(1000)])
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=0.03)


def test_a_ratio_of_sums_is_the_delta_methods() -> None:
    rng = np.random.default_rng(1)
    parts = rng.integers(1, 9, size=(500, 2)).astype(float)
    found = estimate(parts[:, :1], parts[:, 1:], [str(index) for index in range(500)])[0]
    value = parts[:, 0].sum() / parts[:, 1].sum()
    half = 1.96 * np.std(parts[:, 0] - value * parts[:, 1]) / parts[:, 1].mean() / 500**0.5
    assert found.value == pytest.approx(value)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_what_is_undefined_is_none() -> None:
    parts = np.array([[1.0, np.nan], [2.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert estimate(*parts, ["a", "b"]) == [Estimate(None, None, None)] * 2


@given(st.lists(st.integers(0, 1), min_size=1, max_size=20))
def test_the_value_lies_in_its_interval_and_the_seed_repeats_it(successes: list[int]) -> None:
    found = share(successes)
    assert found.low <= found.value <= found.high
    assert found == share(successes)
