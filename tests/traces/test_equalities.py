"""Steps that a text works out are found where they are right, in plain text and in LaTeX."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.traces.equalities import find_written_out
from retool.traces.numbers import agrees


def steps(text: str) -> list[tuple[str, str]]:
    """(last line of the code, what the text has at the step) of each step."""
    return [(step.code.splitlines()[-1], text[step.start :]) for step in find_written_out(text)]


def printed(code: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, {})
    return output.getvalue().strip()


@pytest.mark.parametrize(
    ("text", "code", "rest"),
    [
        ("It takes 3 + 4 = 7 days.", "print(3 + 4)", "7 days."),
        ("The sum of 3 + 4 is 7.", "print(3 + 4)", "7."),
        ("3 times 4 is 12 and more", "print(3 * 4)", "12 and more"),
        ("15% of 80 is 12.", "print(15 / 100 * 80)", "12."),
        ("2/3 of 60 is 40.", "print(2 / 3 * 60)", "40."),
        ("24 x $.50 = $12", "print(24 * 0.5)", "12"),
        (r"costs \$5 \times 3 = \$15.", "print(5 * 3)", "15."),
        (r"is $\frac{3}{4} \cdot 80 = 60$", "print(3 / 4 * 80)", "60$"),
        (r"so $x = \frac{10}{2} = \boxed{5}$", "print(10 / 2)", r"\boxed{5}$"),
        (r"$3^2 + 4^2 = 9 + 16 = 25$", "print(9 + 16)", "25$"),
        ("\\begin{align*}\nx &= 3 + 4 \\\\\n&= 7\n\\end{align*}", "print(3 + 4)", "7\n\\end{align*}"),
        (r"$\frac{10\cdot9\cdot8}{3\cdot2} = 120$", "print(10 * 9 * 8 / (3 * 2))", "120$"),
        (
            r"$\frac{1+2+3+4+5+6}{6} = \frac{21}{6} = \boxed{\frac{7}{2}}$",
            "print(Fraction(21, 6))",
            r"\boxed{\frac{7}{2}}$",
        ),
        (r"$\frac{1+2+4}{2} = \frac72$", "print(Fraction(1 + 2 + 4, 2))", r"\frac72$"),
        ("5x = 100, or 20 = x", "print(solve(Eq(5 * x, 100), x)[0])", "20 = x"),
        ("3 + 5p = 8, and dividing by 3 gives p = $1", "print(solve(Eq(3 + 5 * p, 8), p)[0])", "1"),
        (r"$\binom{5}{2} = 10$ ways", "print(math.comb(5, 2))", "10$ ways"),
        (r"$2^{10} \bmod 7 = 2$", "print(2 ** 10 % 7)", "2$"),
        (r"$1{,}000 + 500 = 1{,}500$", "print(1000 + 500)", "1{,}500$"),
        ("10/3 = 3.33 each", "print(10 / 3)", "3.33 each"),
        ("5 - 8 = -3", "print(5 - 8)", "-3"),
        ("1/5 * 1/2 = 1/10", "print(Fraction(1, 5) * 1 / 2)", "1/10"),
        ("4*x = 24 and x = 6", "print(solve(Eq(4 * x, 24), x)[0])", "6"),
        ("2x + 3 = 11, so x = 4.", "print(solve(Eq(2 * x + 3, 11), x)[0])", "4."),
        (r"$\frac{x}{2} = \frac{7}{2}$ gives $x=7$", "print(solve(Eq(x / 2, Rational(7, 2)), x)[0])", "7$"),
        ("3a = 7 and a = 7/3", "print(solve(Eq(3 * a, 7), a)[0])", "7/3"),
        ("Let x = 3 + 4. Then x is 7.", "print(3 + 4)", "7."),
        ("(1) 4 + 5 = 9", "print(4 + 5)", "9"),
        ("so:\n  2) 4 + 5 = 9", "print(4 + 5)", "9"),
        ("- 5 + 3 = 8 apples", "print(5 + 3)", "8 apples"),
        ("$2^{-3} = \\frac18$", "print(Fraction(2) ** (-3))", "\\frac18$"),
        ("n - 5 = 2n - 12, n = 7", "print(solve(Eq(n - 5, 2 * n - 12), n)[0])", "7"),
    ],
)
def test_a_step_is_found_with_the_code_that_prints_its_value(text, code, rest):
    assert steps(text) == [(code, rest)]
    (step,) = find_written_out(text)
    assert agrees(step.claim, printed(step.code))


def test_an_equation_is_solved_once_and_by_the_last_form_that_it_had():
    found = steps("2x + 3 = 11. Then 2x = 8, so x = 4. As x = 4, we have x + 1 = 5.")
    assert found == [("print(solve(Eq(2 * x, 8), x)[0])", "4. As x = 4, we have x + 1 = 5.")]


def test_what_a_chain_has_worked_out_is_not_solved_again():
    assert len(steps("x = 3 + 4 = 7. So x = 7.")) == 1


@pytest.mark.parametrize(
    "text", ["x + y = 10, x = 4", "x^2 = 16, x = 4", "x = 4", "x = x, x = 4", "5 = 5", "is 3 + 4 ="]
)
def test_what_cannot_be_solved_is_left_alone(text):
    assert steps(text) == []


amounts = st.integers(0, 9999)


@given(amounts, st.sampled_from("+-*"), amounts, st.integers(-3, 3))
def test_a_step_is_taken_if_and_only_if_it_is_right(a, sign, b, error):
    value = eval(f"{a} {sign} {b}")
    assert len(steps(f"We get {a} {sign} {b} = {value + error} of them.")) == (error == 0)


@given(st.integers(2, 99), st.integers(-99, 99), st.integers(-99, 99))
def test_every_linear_equation_with_its_solution_is_a_step_whose_code_prints_it(a, b, x):
    (step,) = find_written_out(f"{a}t {'-' if b < 0 else '+'} {abs(b)} = {a * x + b}, hence t = {x}.")
    assert printed(step.code) == str(x)


@given(st.text(max_size=80), st.text(alphabet="0123456789+-*/=%(){}^!.,$x \\\nfraciso", max_size=80))
def test_no_text_is_too_strange(anything, nearly):
    for text in (anything, nearly):
        for step in find_written_out(text):
            assert text[step.start] in "0123456789-.\\(" + "{"
