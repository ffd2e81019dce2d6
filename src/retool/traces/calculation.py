"""A calculation with its value (`1,200 x 5% = 60`) as a line of Python that works the value out."""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass

from retool.traces.exact import exact_value, letters
from retool.traces.expression import Unreadable, parse_expression
from retool.traces.notation import whole
from retool.traces.numbers import agrees, parse_number

LONGEST = 200  # characters


@dataclass(frozen=True, slots=True)
class Calculation:
    """An expression of numbers, and the value that was stated for it: a number, or a fraction such as `7/2`."""

    tree: ast.expr
    claim: str

    @property
    def code(self) -> str:
        """A snippet that prints the value, as a fraction if the claim is one."""
        return print_value(with_fractions(self.tree, "Fraction") if "/" in self.claim else self.tree)

    @property
    def holds(self) -> bool:
        """Is the claim the value, by exact fractions, or that value rounded to the decimals of the claim?"""
        value = exact_value(self.tree)
        return value is not None and agrees(self.claim, str(value))


def parse_calculation(text: str) -> Calculation:
    """Read "expression=value". Raises ValueError, saying what is wrong, unless it is plain arithmetic and a number."""
    if len(text) > LONGEST:
        raise ValueError(f"{text[:20]!r}… has {len(text)} characters, more than {LONGEST}")
    sides = re.sub(r"[$€£¢]", "", text).split("=")
    if len(sides) != 2:
        raise ValueError(f"{text!r} is not of the form expression=value")
    claim = "".join(sides[1].split())
    if parse_number(claim) is None:
        raise ValueError(f"the value {sides[1]!r} of {text!r} is not a number")
    try:
        tree = parse_expression(whole(sides[0]))
    except Unreadable as error:
        raise ValueError(f"{sides[0]!r} is not an arithmetic expression: {error}") from error
    if unknown := letters(tree):
        raise ValueError(f"{sides[0]!r} holds more than numbers and arithmetic ({', '.join(sorted(unknown))})")
    return Calculation(tree, claim)


def print_value(tree: ast.expr) -> str:
    """The program that prints an expression, with the imports that it needs."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = "import math\n" * ("math" in used) + "from fractions import Fraction\n" * ("Fraction" in used)
    return f"{imports}print({ast.unparse(tree)})"


def with_fractions(tree: ast.expr, name: str) -> ast.expr:
    """The tree with exact quotients: `1 / 5` becomes `Fraction(1, 5)`, `2 ** -3` is `Fraction(2) ** -3`, or whatever
    class has that `name`."""
    return _WithFractions(name).visit(copy.deepcopy(tree))


class _WithFractions(ast.NodeTransformer):
    def __init__(self, name: str):
        self._name = name

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Div) and _is_whole(node.left) and _is_whole(node.right):
            return ast.Call(ast.Name(self._name), [node.left, node.right], [])
        if isinstance(node.op, ast.Pow) and _is_whole(node.left) and isinstance(node.right, ast.UnaryOp):
            return ast.BinOp(ast.Call(ast.Name(self._name), [node.left], []), node.op, node.right)
        return node


def _is_whole(tree: ast.expr) -> bool:
    """Is it made of integers, so that its value is one?"""
    if isinstance(tree, ast.BinOp):
        return isinstance(tree.op, ast.Add | ast.Sub | ast.Mult) and _is_whole(tree.left) and _is_whole(tree.right)
    if isinstance(tree, ast.UnaryOp):
        return _is_whole(tree.operand)
    return isinstance(tree, ast.Constant) and isinstance(tree.value, int)
