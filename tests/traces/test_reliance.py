"""Whether a text relies on an output that turned out differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.traces.reliance import relied_on


@pytest.mark.parametrize(
    ("imagined", "real", "following"),
    [
        ("12", "12\n", "So 12."),
        ("The total is 12", "12", "The total is 12."),
        ("3.3333", "3.3333333333333335", "So 3.33 each."),
        ("[1, 2, 4]", "[1, 2, 3]", "The first is 1."),
        ("x = 12", "[12]", "So x is 12."),
        ("NameError: name 'f' is not defined", "Traceback …\nNameError: name 'f' is not defined", "It is not defined."),
        ("True", "True", "True."),
        ("0.5", "1/2", "It is half, 0.5."),
        ("12 13 14", "13 12 14", "The last is 14."),
        ("12 13", "12 12.5 13", "From 12 to 13."),
    ],
)
def test_nothing_is_lost_where_the_real_output_says_the_same(imagined, real, following):
    assert relied_on(imagined, real, following) is None


@pytest.mark.parametrize(
    ("imagined", "real", "following", "wrong"),
    [
        ("12", "13", "So 12.", "12"),
        ("12", "13", "Twice that is 24.", "12"),
        ("12", "13", "So we are done.", "12"),
        ("12", "", "So 12.", "12"),
        ("[1, 2, 4]", "[1, 2, 3]", "The last is 4, the first 1.", "4"),
        ("a = 12, b = 13", "a = 13, b = 12", "So a is 12.", "12"),
        ("True", "False", "So it holds.", "true"),
        ("prime", "composite", "As it is prime, …", "prime"),
        ("12 True", "12 False", "It is true for 12.", "true"),
        ("1200", "1300", "So 1,200 of them.", "1,200"),
        ("12", "NameError: name 'x' is not defined", "So 12.", "12"),
    ],
)
def test_what_is_wrong_and_relied_on_is_named(imagined, real, following, wrong):
    assert relied_on(imagined, real, following) == wrong


@given(st.text(), st.text(), st.text())
def test_an_output_never_differs_from_itself(output, before, following):
    assert relied_on(output, output + " ", following) is None
    relied_on(output, before, following)


@given(st.integers(), st.integers())
def test_another_number_is_always_noticed(imagined, real):
    assert (relied_on(str(imagined), str(real), f"So it is {imagined}.") is None) == (imagined == real)
