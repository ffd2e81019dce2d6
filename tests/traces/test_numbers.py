"""When two numbers say the same, and how one is written plainly."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.traces.numbers import agrees, parse_number, plain_number


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("24.0", "24"),
        ("1,200", "1200"),
        (" 0.50\n", "0.5"),
        ("0.30000000000000004", "0.3"),
        ("59615.99999999999", "59616"),
        ("1e+16", "10000000000000000"),
        ("-0.0", "0"),
        ("100", "100"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        (".5", "0.5"),
    ],
)
def test_plain_numbers(text, plain):
    assert plain_number(text) == plain


@pytest.mark.parametrize("text", ["", ".", "nan", "inf", "x", "1 2", "1,2", "1_000", "1e999999999", "(1+2j)", "٣"])
def test_what_is_no_number(text):
    assert parse_number(text) is None
    assert plain_number(text) is None


@pytest.mark.parametrize(
    ("claim", "output"),
    [("24", "24.0\n"), ("3.33", "3.3333333333333335"), ("0.3", "0.30000000000000004"), ("990.00", "990"), ("a", "a\n")],
)
def test_values_that_agree(claim, output):
    assert agrees(claim, output)


@pytest.mark.parametrize(
    ("claim", "output"),
    [("3", "3.3333333333333335"), ("3.3", "3.2"), ("1000000001", "1000000000"), ("24", "24 25"), ("24", "")],
)
def test_values_that_do_not_agree(claim, output):
    assert not agrees(claim, output)


def test_a_fraction_is_the_number_that_it_stands_for():
    for claim, output in (
        ("7/2", "3.5"),
        ("3.5", "7/2"),
        ("1/3", "1/3"),
        ("-1/3", "-0.333333333333"),
        ("3.33", "10/3"),
    ):
        assert agrees(claim, output)
    for claim, output in (("7/2", "3"), ("1/3", "0.33"), ("1/0", "0"), ("3", "10/3")):
        assert not agrees(claim, output)


@given(st.integers(), st.integers())
def test_integers_agree_only_if_equal(a, b):
    assert agrees(str(a), str(b)) == (a == b)


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-1e15, max_value=1e15))
def test_a_plain_number_is_the_float_to_twelve_digits(value):
    plain = Fraction(plain_number(repr(value)))
    assert abs(plain - Fraction(value)) <= abs(Fraction(value)) * Fraction(1, 10**11)
    assert "e" not in plain_number(repr(value)).lower()
