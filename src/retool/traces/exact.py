"""What an expression is worth: exactly, as long as that is cheap, and as a linear function of one letter."""

from __future__ import annotations

import ast
import math
from fractions import Fraction

_LARGEST_BITS = 4096
_LARGEST_FACTORIAL = 200

Linear = tuple[Fraction, Fraction]
"""(slope, constant)."""


def exact_value(tree: ast.expr) -> Fraction | None:
    """The value of an expression of numbers. None if it has letters, no rational value, or one that is too large."""
    try:
        linear = _linear(tree, None)
    except (ZeroDivisionError, _TooMuch):
        return None
    return linear[1]


def linear_in(tree: ast.expr, letter: str) -> Linear | None:
    """(slope, constant) of an expression in which no other letter occurs; None if it is not linear."""
    try:
        return _linear(tree, letter)
    except (ZeroDivisionError, _TooMuch):
        return None


def solve_linear(left: ast.expr, right: ast.expr) -> tuple[str, Fraction] | None:
    """The letter and its value, if `left = right` is a linear equation with one letter and one solution."""
    unknowns = letters(left) | letters(right)
    if len(unknowns) != 1:
        return None
    (letter,) = unknowns
    lines = linear_in(left, letter), linear_in(right, letter)
    if None in lines or lines[0][0] == lines[1][0]:
        return None
    (a, b), (c, d) = lines
    return letter, (d - b) / (a - c)


def letters(tree: ast.expr) -> set[str]:
    """The variables of an expression."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"math"}


class _TooMuch(Exception):
    """The expression is not linear, not rational, or too large to be anybody's calculation."""


def _linear(node: ast.expr, letter: str | None) -> Linear:
    if isinstance(node, ast.Constant):
        return Fraction(0), Fraction(repr(node.value))
    if isinstance(node, ast.Name) and node.id == letter:
        return Fraction(1), Fraction(0)
    if isinstance(node, ast.UnaryOp):
        slope, constant = _linear(node.operand, letter)
        return (-slope, -constant) if isinstance(node.op, ast.USub) else (slope, constant)
    if isinstance(node, ast.BinOp):
        return _bounded(*_combined(node.op, _linear(node.left, letter), _linear(node.right, letter)))
    if isinstance(node, ast.Call):
        return _bounded(Fraction(0), _called(node.func.attr, [_constant(_linear(n, letter)) for n in node.args]))
    raise _TooMuch


def _combined(operator: ast.operator, left: Linear, right: Linear) -> Linear:
    (a, b), (c, d) = left, right
    if isinstance(operator, ast.Add):
        return a + c, b + d
    if isinstance(operator, ast.Sub):
        return a - c, b - d
    if isinstance(operator, ast.Mult) and not (a and c):
        return a * d + c * b, b * d
    if isinstance(operator, ast.Div) and not c:
        return a / d, b / d
    base, other = _constant(left), _constant(right)
    if isinstance(operator, ast.FloorDiv):
        return Fraction(0), Fraction(base // other)
    if isinstance(operator, ast.Mod):
        return Fraction(0), base % other
    if isinstance(operator, ast.Pow) and other.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(other) > _LARGEST_BITS:
            raise _TooMuch
        return Fraction(0), base ** int(other)
    raise _TooMuch


def _called(function: str, arguments: list[Fraction]) -> Fraction:
    if any(argument.denominator != 1 or argument < 0 for argument in arguments):
        raise _TooMuch
    numbers = [int(argument) for argument in arguments]
    if function == "sqrt":
        root = math.isqrt(numbers[0])
        if root * root != numbers[0]:
            raise _TooMuch
        return Fraction(root)
    if max(numbers) > _LARGEST_FACTORIAL and function in ("factorial", "comb"):
        raise _TooMuch
    return Fraction(getattr(math, function)(*numbers))


def _constant(linear: Linear) -> Fraction:
    if linear[0]:
        raise _TooMuch
    return linear[1]


def _bounded(slope: Fraction, constant: Fraction) -> Linear:
    if any(max(n.numerator.bit_length(), n.denominator.bit_length()) > _LARGEST_BITS for n in (slope, constant)):
        raise _TooMuch
    return slope, constant
