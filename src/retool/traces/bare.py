"""Solutions that are an expression or an equation and nothing else, as in SVAMP and MAWPS (`28.0 + x = 54.0`)."""

from __future__ import annotations

import ast
from decimal import Decimal, localcontext
from fractions import Fraction

from retool.traces.exact import exact_value, letters, solve_linear
from retool.traces.expression import LONGEST, parse_expression
from retool.traces.notation import Sort, whole


def with_value(solution: str) -> str:
    """The solution with the value that it comes to: `( 8.0 - 3.0 ) = 5`, `28+x=54, x = 26`. Any other comes back."""
    try:
        tokens = whole(solution)
        cuts = [index for index, token in enumerate(tokens) if token.sort is Sort.EQUALS]
        if not cuts:
            return solution + _stated(parse_expression(tokens))
        if len(cuts) > 1 or tokens[cuts[0]].text != "=":
            return solution
        return solution + _solved(parse_expression(tokens[: cuts[0]]), parse_expression(tokens[cuts[0] + 1 :]))
    except ValueError:
        return solution


def _solved(left: ast.expr, right: ast.expr) -> str:
    if isinstance(left, ast.Name) and not letters(right):
        return _stated(right)
    solved = solve_linear(left, right)
    return f", {solved[0]} = {_written(solved[1])}" if solved else ""


def _stated(tree: ast.expr) -> str:
    value = exact_value(tree)
    return "" if value is None or isinstance(tree, ast.Constant) else f" = {_written(value)}"


def _written(value: Fraction) -> str:
    """As a decimal if it has an end, else as a fraction."""
    odd = value.denominator
    for prime in (2, 5):
        while odd % prime == 0:
            odd //= prime
    if odd > 1:
        return str(value)
    with localcontext(prec=LONGEST):
        return f"{(Decimal(value.numerator) / value.denominator).normalize():f}"
