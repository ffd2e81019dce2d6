"""Calculations as people type them become Python, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.traces.calculation import parse_calculation


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("48/2=24", "print(48 / 2)"),
        ("0.2*50=10", "print(0.2 * 50)"),
        ("6*(30/60)=3", "print(6 * (30 / 60))"),
        (".5*100=50", "print(0.5 * 100)"),
        ("1,200*3=3,600", "print(1200 * 3)"),
        ("200*40%=80", "print(200 * (40 / 100))"),
        ("17%5=2", "print(17 % 5)"),
        ("05+3=8", "print(5 + 3)"),
        ("100+007=107", "print(100 + 7)"),
        ("2 x 3=6", "print(2 * 3)"),
        ("2×3=6", "print(2 * 3)"),
        ("$5+$2.50=$7.50", "print(5 + 2.5)"),
        ("2(3+4)=14", "print(2 * (3 + 4))"),
        ("(1+2)(3)=9", "print((1 + 2) * 3)"),
        ("2^10=1024", "print(2 ** 10)"),
        ("560//10=56", "print(560 // 10)"),
        ("-5+3=-2", "print(-5 + 3)"),
    ],
)
def test_arithmetic_becomes_a_line_of_python(text, code):
    assert parse_calculation(text).code == code


def test_the_claim_is_the_stated_value_without_its_currency():
    assert parse_calculation("$5+$2.50=$7.50").claim == "7.50"


@pytest.mark.parametrize("text", ["48/2=24", "0.1+0.2=0.3", "51840*1.15=59616", "1/3*60=20", "7//2=3", "-2*-2=4"])
def test_a_right_calculation_holds_exactly(text):
    assert parse_calculation(text).holds


@pytest.mark.parametrize("text", ["48/2=25", "10/3=3.33", "1/0=0", "1%0=0", "2**3=8"])
def test_a_wrong_rounded_or_impossible_one_does_not(text):
    assert not parse_calculation(text).holds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("48/2", "not of the form"),
        ("3*4=12=12", "not of the form"),
        ("3*x=12", "more than numbers"),
        ("exit()=0", "more than numbers"),
        ("'a'*9=9", "more than numbers"),
        ("True+1=2", "more than numbers"),
        ("2j*2=4", "more than numbers"),
        ("3+=3", "not of the form|not an arithmetic"),
        ("3 apples=3", "not an arithmetic"),
        ("1/2=half", "is not a number"),
        ("0.2*100=20%", "is not a number"),
        ("1" * 500 + "=1", "characters"),
    ],
)
def test_everything_else_is_refused_with_a_reason(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_calculation(text)


@given(st.text(max_size=60), st.text(alphabet="0123456789+-*/%().,x^$ =\x00_ej[]", max_size=60))
def test_any_text_is_read_or_refused(anything, nearly):
    for text in (anything, nearly, f"{nearly}=1"):
        try:
            code = parse_calculation(text).code
        except ValueError:
            continue
        assert not set(code.removeprefix("print")) - set("0123456789+-*/%(). einf")
