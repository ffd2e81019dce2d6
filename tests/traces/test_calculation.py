"""Calculations as people type them become Python, and nothing else does."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.traces.calculation import parse_calculation
from retool.traces.exact import exact_value
from retool.traces.expression import parse_expression
from retool.traces.notation import whole


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("48/2=24", "print(48 / 2)"),
        ("2**3=8", "print(2 ** 3)"),
        ("15% of 80=12", "print(15 / 100 * 80)"),
        (r"\frac{3}{4} \cdot 80=60", "print(3 / 4 * 80)"),
        (r"\dfrac12 \times \left(3 + 5\right)=4", "print(1 / 2 * (3 + 5))"),
        (r"1{,}000 + 500=1500", "print(1000 + 500)"),
        (r"\binom{5}{2}=10", "import math\nprint(math.comb(5, 2))"),
        ("5!/3!=20", "import math\nprint(math.factorial(5) / math.factorial(3))"),
        (r"\sqrt{144}=12", "import math\nprint(math.sqrt(144))"),
        ("gcd(12, 18)=6", "import math\nprint(math.gcd(12, 18))"),
        (r"2^{10} \bmod 7=2", "print(2 ** 10 % 7)"),
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


@pytest.mark.parametrize(
    "text",
    ["48/2=24", "0.1+0.2=0.3", "51840*1.15=59616", "1/3*60=20", "7//2=3", "-2*-2=4", "2**3=8", "10/3=3.33"],
)
def test_a_right_or_rounded_calculation_holds(text):
    assert parse_calculation(text).holds


@pytest.mark.parametrize("text", ["48/2=25", "10/3=3", "10/3=3.34", "1/0=0", "1%0=0", "9**9**9=0", "200!/199!=1"])
def test_a_wrong_or_impossible_one_does_not(text):
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
        ("3+=3", "not an arithmetic expression: it ends in the middle"),
        ("3 apples=3", "more than numbers"),
        ("1 1/2=1.5", "not an arithmetic"),
        (r"3\frac{1}{2}=3.5", "not an arithmetic"),
        (r"\pi*2=6", "more than numbers|not an arithmetic"),
        ("(" * 150 + "1=1", "not an arithmetic"),
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
        assert re.fullmatch(r"(import math\n)?print\((math\.[a-z]+|[0-9+*/%()., e-])+\)", code)


numbers = st.integers(0, 99).map(str) | st.decimals(0, 99, places=2).map(str)
signed = st.tuples(st.sampled_from(["{}", "({})", "(-{})"]), numbers).map(lambda pair: pair[0].format(pair[1]))
expressions = st.recursive(
    signed,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" + ", "-", "*", " / ", " - "]), inner).map("".join)
        | inner.map("({})".format)
    ),
    max_leaves=8,
)


@given(expressions)
def test_expressions_are_read_as_python_reads_them(text):
    """With the numbers as fractions, so that both are exact."""
    try:
        value = eval(re.sub(r"[\d.]+", r"Fraction('\g<0>')", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        value = None
    assert exact_value(parse_expression(whole(text))) == value
