"""Reads a calculation as people type it ("1,200 x 5% = 60") and writes it as a line of Python.

The expression becomes code only after its syntax tree was checked: numbers and arithmetic, nothing else.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from retool.traces.numbers import parse_number

LONGEST = 200  # characters; nobody writes more by hand, and a parser's stack has an end

_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub),
)

_EXACT = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)

# Applied in order; each makes one habit of writing into Python.
_HABITS = (
    (re.compile(r"[$€£¢]"), ""),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # 1,200
    (re.compile(r"[−–]"), "-"),
    (re.compile("÷"), "/"),
    (re.compile(r"(?<=[\d.)%])\s*[xX×·]\s*(?=[\d.(])"), "*"),
    (re.compile(r"\^"), "**"),
    (re.compile(r"(\d+\.?\d*|\.\d+)\s*%(?=\s*(?:[-+*/)]|$))"), r"(\1/100)"),  # 5% of, not 17 % 5
    (re.compile(r"(?<=[\d)])\s*(?=\()|(?<=\))\s*(?=\d)"), "*"),  # 2(3 + 4)
    (re.compile(r"(?<![\d.])0+(?=\d)"), ""),  # 05 is no Python number
)


@dataclass(frozen=True, slots=True)
class Calculation:
    """`expression` is Python arithmetic on literals; `claim` is the value that was stated for it, a number."""

    expression: str
    claim: str
    holds: bool
    """The expression has that value, by exact fractions."""

    @property
    def code(self) -> str:
        return f"print({self.expression})"


def parse_calculation(text: str) -> Calculation:
    """Read "expression=value". Raises ValueError, saying what is wrong, unless it is plain arithmetic and a number."""
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]!r}… has {len(text)} characters, more than {LONGEST}")
    sides = text.split("=")
    if len(sides) != 2:
        raise ValueError(f"{text!r} is not of the form expression=value")
    expression = sides[0].strip()
    for habit, python in _HABITS:
        expression = habit.sub(python, expression)
    claim = re.sub(r"[$€£¢\s]", "", sides[1])
    if parse_number(claim) is None:
        raise ValueError(f"the value {sides[1]!r} of {text!r} is not a number")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise ValueError(f"{sides[0]!r} is not an arithmetic expression") from error
    for node in ast.walk(tree):
        if not isinstance(node, _ARITHMETIC) or (
            isinstance(node, ast.Constant) and type(node.value) not in (int, float)
        ):
            raise ValueError(f"{sides[0]!r} holds more than numbers and arithmetic ({type(node).__name__})")
    value = _value(tree.body)
    return Calculation(
        expression=ast.unparse(tree),
        claim=claim,
        holds=value is not None and value == Fraction(parse_number(claim)),
    )


def _value(node: ast.expr) -> Fraction | None:
    """The exact value of a checked expression. None where a person would not have got it either: powers, x / 0."""
    if isinstance(node, ast.Constant):
        return Fraction(repr(node.value)) if isfinite(node.value) else None
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand)
        return value if value is None or isinstance(node.op, ast.UAdd) else -value
    left, right = _value(node.left), _value(node.right)
    operation = _EXACT.get(type(node.op))
    if left is None or right is None or operation is None:
        return None
    return operation(left, right) if right or not isinstance(node.op, _DIVISIONS) else None
