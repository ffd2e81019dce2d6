"""Steps that are written out in a text: `3 + 4 = 7`, `15% of 80 is 12`, and `2x + 3 = 11 … x = 4`.

Only what is right is a step: what seems wrong may be a part of something else ("12 x 1 and 1/4 = 15").
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import gcd

from retool.traces.calculation import Calculation, print_value, with_fractions
from retool.traces.exact import letters, solve_linear
from retool.traces.expression import Unreadable, parse_expression
from retool.traces.notation import Sort, Token, runs
from retool.traces.numbers import agrees


@dataclass(frozen=True, slots=True)
class WrittenOut:
    """A value that a text works out: the value stands at `start`, and `code` prints it."""

    start: int
    code: str
    claim: str


def find_written_out(text: str) -> list[WrittenOut]:
    """The steps of `text`, in order."""
    equations = _Equations()
    return [step for run in runs(text) for step in _steps(run, equations)]


@dataclass(frozen=True, slots=True)
class _Side:
    """A side of an equality: its tokens, its tree if it can be read, and the number that it plainly is."""

    tokens: list[Token]
    tree: ast.expr | None
    number: str | None

    @property
    def letter(self) -> str | None:
        """The letter that is all of it."""
        return self.tree.id if isinstance(self.tree, ast.Name) else None

    @property
    def calculates(self) -> bool:
        """Is it an expression of numbers with something to work out?"""
        if self.tree is None or letters(self.tree):
            return False
        return any(isinstance(node, ast.BinOp | ast.Call) for node in ast.walk(self.tree))


def _steps(run: Sequence[Token], equations: _Equations) -> Iterator[WrittenOut]:
    sides, exact = _sides(run)
    for left, right, is_equation in zip(sides, sides[1:], exact, strict=False):
        if right.number is not None and left.calculates and left.number != right.number:
            calculation = Calculation(left.tree, right.number)
            if calculation.holds:
                equations.learn(sides[0].letter, right.number)
                yield WrittenOut(right.tokens[0].start, calculation.code, right.number)
        elif right.number is not None and left.letter and (code := equations.solve(left.letter, right.number)):
            yield WrittenOut(right.tokens[0].start, code, right.number)
        elif left.number is not None and right.letter and (code := equations.solve(right.letter, left.number)):
            yield WrittenOut(left.tokens[0].start, code, left.number)
        elif is_equation and left.tree is not None and right.tree is not None:
            equations.add(left.tree, right.tree)


def _sides(run: Sequence[Token]) -> tuple[list[_Side], list[bool]]:
    """The sides of a chain of equalities, and for each sign between them whether it is one of equations."""
    cuts = [index for index, token in enumerate(run) if token.sort is Sort.EQUALS]
    if not cuts:
        return [], []
    bounds = [-1, *cuts, len(run)]
    sides = [_side(list(run[begin + 1 : end]), begin < 0) for begin, end in pairwise(bounds)]
    return sides, [run[cut].text == "=" for cut in cuts]


def _side(tokens: list[Token], first: bool) -> _Side:
    if first and _goes_on_before(tokens):
        return _Side(tokens, None, None)
    inside = tokens
    if len(tokens) > 3 and tokens[0].text == "boxed" and tokens[1].text == "{" and tokens[-1].text == "}":
        inside = tokens[2:-1]
    try:
        tree = parse_expression(inside)
    except Unreadable:
        return _Side(tokens, None, None)
    return _Side(tokens, tree, _plain_number(tree, inside))


def _goes_on_before(tokens: Sequence[Token]) -> bool:
    """Do they look like the end of something else, as in "the rest - 3 - 4 = …"?"""
    return len(tokens) > 1 and (tokens[0].text == "+" or (tokens[0].text == "-" and tokens[0].end < tokens[1].start))


def _plain_number(tree: ast.expr, tokens: Sequence[Token]) -> str | None:
    """`1200` for `1,200`, `7/2` for `\\frac{7}{2}`; None where there is anything to work out, as in `21/6`."""
    if isinstance(tree, ast.UnaryOp) and (number := _plain_number(tree.operand, tokens)):
        return None if number.startswith("-") else f"-{number}"
    if isinstance(tree, ast.Constant):
        token = next(token for token in tokens if token.sort is Sort.NUMBER)
        return token.text.translate({ord(sign): None for sign in ",{}\\!"})
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Div) and not any(token.text == "%" for token in tokens):
        parts = [tree.left, tree.right]
        if all(isinstance(part, ast.Constant) and isinstance(part.value, int) for part in parts):
            over, under = (part.value for part in parts)
            return f"{over}/{under}" if gcd(over, under) == 1 and under > 1 else None
    return None


@dataclass(slots=True)
class _Equations:
    """What a text has said about its variables so far: linear equations of one letter, and values."""

    _open: dict[str, tuple[Fraction, str]] = field(default_factory=dict)
    """For each letter the solution of its latest equation, and a program that prints it."""
    _known: set[tuple[str, str]] = field(default_factory=set)

    def add(self, left: ast.expr, right: ast.expr) -> None:
        """Take note of `left = right`, if it is a linear equation with one letter."""
        if solved := solve_linear(left, right):
            letter, value = solved
            self._open[letter] = value, _solving(letter, left, right)

    def learn(self, letter: str | None, number: str) -> None:
        """`letter` has been found to be `number`."""
        if letter:
            self._known.add((letter, number))

    def solve(self, letter: str, number: str) -> str | None:
        """The program that prints `number`, if the latest equation gives it to `letter`, and nothing has before."""
        solution, code = self._open.get(letter, (None, None))
        if code is None or (letter, number) in self._known or not agrees(number, str(solution)):
            return None
        self.learn(letter, number)
        return code


def _solving(letter: str, left: ast.expr, right: ast.expr) -> str:
    for side, other in ((left, right), (right, left)):
        if isinstance(side, ast.Name) and not letters(other):
            return print_value(other)
    equation = ", ".join(ast.unparse(with_fractions(side, "Rational")) for side in (left, right))
    names = "Eq, Rational, solve, symbols" if "Rational" in equation else "Eq, solve, symbols"
    return f'from sympy import {names}\n\n{letter} = symbols("{letter}")\nprint(solve(Eq({equation}), {letter})[0])'
