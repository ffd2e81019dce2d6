"""Does code search: go through candidates that it counts or combines, and keep some of them?"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

_ENUMERATED = re.compile(
    "range|arange|count|product|combinations|permutations|combinations_with_replacement|primerange|divisors"
)
_FIRST_OR_BEST = ("max", "min", "next", "any", "all")
_COMPREHENSIONS = (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)


def selects_candidates(nodes: Sequence[ast.AST]) -> bool:
    """`nodes` are all those of a program."""
    named = {  # numbers = range(100)
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and _enumerates(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return any(_selects(node, named) for node in nodes)


def called_name(call: ast.Call) -> str:
    """The last part of the name that is called: `range`, or `product` of `itertools.product`; "" if it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _selects(node: ast.AST, named: set[str]) -> bool:
    """Does this loop, comprehension or call keep some of the candidates? `named` holds candidates, too."""
    if isinstance(node, _COMPREHENSIONS):
        return any(g.ifs and _enumerates(g.iter, named) for g in node.generators)
    if isinstance(node, ast.Call):
        return _chooses(node, named)
    if isinstance(node, ast.Subscript):  # n[n % 7 == 3] of NumPy
        return _is_condition(node.slice) and _enumerates(node.value, named)
    if isinstance(node, ast.For):
        return _enumerates(node.iter, named) and _keeps_some(node)
    return isinstance(node, ast.While) and _counts_up_to_a_find(node)


def _chooses(call: ast.Call, named: set[str]) -> bool:
    """The first or the best of a comprehension over candidates; the best by a key; those that a filter lets through;
    how many meet a condition."""
    if not isinstance(call.func, ast.Name):
        return False
    if call.func.id == "filter" or (call.func.id in _FIRST_OR_BEST and any(k.arg == "key" for k in call.keywords)):
        return any(_enumerates(argument, named) for argument in call.args)
    taken = [argument for argument in call.args if isinstance(argument, _COMPREHENSIONS)]
    if call.func.id == "sum":  # of truth values
        taken = [argument for argument in taken if _is_condition(getattr(argument, "elt", None))]
    elif call.func.id not in _FIRST_OR_BEST:
        return False
    return any(_enumerates(g.iter, named) for argument in taken for g in argument.generators)


def _is_condition(node: ast.AST | None) -> bool:
    """Comparisons, and what `and`, `or`, `not`, `&`, `|`, `~` make of them."""
    if isinstance(node, ast.BoolOp):
        return all(map(_is_condition, node.values))
    if isinstance(node, ast.BinOp):
        is_bitwise = isinstance(node.op, ast.BitAnd | ast.BitOr)
        return is_bitwise and _is_condition(node.left) and _is_condition(node.right)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not | ast.Invert) and _is_condition(node.operand)
    return isinstance(node, ast.Compare)


def _counts_up_to_a_find(loop: ast.While) -> bool:
    """Does the loop try one number after the other until a test of it holds?"""
    counted = {name for statement in loop.body for name in _counted(statement)}
    if not counted:
        return False
    computed = [node for node in ast.walk(loop.test) if isinstance(node, ast.BinOp | ast.Call)]
    tested = {inner.id for node in computed for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return bool(counted & tested) or _keeps_some(loop)


def _counted(statement: ast.stmt) -> list[str]:
    """The name that `n += 1` or `n = n + 1` adds to."""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.BinOp):
        sides = (statement.value.left, statement.value.right) if isinstance(statement.value.op, ast.Add) else ()
        added = {side.id for side in sides if isinstance(side, ast.Name)}
        return [target.id for target in statement.targets if isinstance(target, ast.Name) and target.id in added]
    return []


def _enumerates(iterable: ast.expr, named: set[str]) -> bool:
    """Are these candidates made up by counting or combining, not given as data?"""
    return any(
        (isinstance(node, ast.Call) and _ENUMERATED.fullmatch(called_name(node)) is not None)
        or (isinstance(node, ast.Name) and node.id in named)
        for node in ast.walk(iterable)
    )


def _keeps_some(loop: ast.For | ast.While) -> bool:
    """Is there a condition in the loop, without an alternative, under which something is kept, counted or ended?"""
    return any(
        isinstance(node, ast.If)
        and all(isinstance(statement, ast.Continue | ast.Pass) for statement in node.orelse)
        and any(_keeps(statement, node.test) for statement in node.body)
        for node in ast.walk(loop)
    )


def _keeps(statement: ast.stmt, test: ast.expr) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call | ast.Yield)  # prints, appends, adds
    if isinstance(statement, ast.Assign):  # if value > best: best = value
        tested = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
        return _orders(test) and any(isinstance(t, ast.Name) and t.id in tested for t in statement.targets)
    return isinstance(statement, ast.Break | ast.Return | ast.Continue | ast.AugAssign)


def _orders(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp):  # if best is None or value > best
        return any(map(_orders, test.values))
    return isinstance(test, ast.Compare) and any(
        isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for operator in test.ops
    )
