"""What can be seen in the syntax tree of a snippet that tells its purpose (`retool.analysis.purpose`)."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache

from retool.analysis.enumeration import called_name, selects_candidates
from retool.analysis.syntax import longest_program

_RANDOM = ("random.", "secrets.", "numpy.random.")
_ALGEBRA = re.compile(
    "[sS]ymbols?|var|Eq|solve|solveset|linsolve|nonlinsolve|dsolve|rsolve|diophantine|roots|reduce_inequalities"
    "|simplify|trigsimp|expand|factor|collect|apart|cancel|together|sympify|Poly|resultant|groebner|Matrix"
    "|diff|Derivative|integrate|Integral|[lL]imit|series|summation|Sum|Product"
)
_APPROXIMATIONS = re.compile(
    r"scipy\.(?:optimize|integrate|interpolate)\b.*|numpy\.(?:linalg\.(?:solve|lstsq)|roots|polyfit|interp|trapz|trapezoid)"
    r"|mpmath\.(?:findroot|quad)|sympy\.nsolve|nsolve|findroot"
)
_DATA = re.compile(
    r"(?:pandas|datetime|calendar|statistics|csv|json|re)(?:\..*)?|collections\.Counter"
    r"|(?:.*\.)?(?:split|replace|strip|lower|upper|startswith|endswith|most_common|isalpha|mean|median|stdev|std|percentile)"
)
_PLOTS = ("matplotlib", "pylab", "seaborn", "plotly", "bokeh", "altair", "turtle")
_SMALL = 1e-2  # a number that a loop compares with, and that is smaller, is a tolerance


@dataclass(frozen=True, slots=True)
class Features:
    """Each field is a clause of the rules for purposes."""

    tests_equality: bool = False
    draws_at_random: bool = False
    names_simulation: bool = False
    algebra: bool = False
    approximates: bool = False
    selects_candidates: bool = False
    plots: bool = False
    handles_data: bool = False
    computes: bool = False


@lru_cache(maxsize=4096)
def features(code: str) -> Features:
    """The features of `code`, or of its lines before a syntax error."""
    tree = longest_program(code)
    if tree is None:
        return Features()
    nodes = list(ast.walk(tree))
    modules = _modules(nodes)  # local name -> what it stands for
    called = {_full_name(node.func, modules) for node in nodes if isinstance(node, ast.Call)}
    used = called | set(modules.values())
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    uses_sympy = any(name.partition(".")[0] == "sympy" for name in used)
    return Features(
        tests_equality=_tests_equality(tree),
        draws_at_random=any(name.startswith(_RANDOM) for name in called),
        names_simulation=any("simulat" in name.lower() or "monte_carlo" in name.lower() for name in names),
        algebra=uses_sympy and any(_ALGEBRA.fullmatch(name.rpartition(".")[2]) for name in called),
        approximates=any(map(_APPROXIMATIONS.fullmatch, called)) or any(map(_ends_at_a_tolerance, nodes)),
        selects_candidates=selects_candidates(nodes),
        plots=any(name.partition(".")[0] in _PLOTS for name in modules.values()),
        handles_data=any(map(_DATA.fullmatch, used)),
        computes=bool(called - {"print"})
        or any(isinstance(node, ast.BinOp | ast.AugAssign | ast.Compare | ast.UnaryOp) for node in nodes),
    )


def _modules(nodes: list[ast.AST]) -> dict[str, str]:
    """What each imported name stands for: {"np": "numpy", "solve": "sympy.solve"}."""
    found = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return found


def _full_name(node: ast.expr, modules: dict[str, str]) -> str:
    """`np.random.rand` → `numpy.random.rand`; of a method of some value, its name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(modules.get(node.id, node.id))
    return ".".join(reversed(parts))


def _tests_equality(tree: ast.Module) -> bool:
    """Outside functions: an assertion, a printed comparison by equality, or an `if` on one that only prints texts."""
    truths = {  # is_right = x == 3
        target.id
        for statement in tree.body
        if isinstance(statement, ast.Assign) and _is_equality(statement.value)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    return _asserts(tree) or any(
        (_is_print(statement) and any(_shows_equality(part, truths) for part in statement.value.args))
        or (
            isinstance(statement, ast.If)
            and _is_equality(statement.test)
            and all(map(_prints_text, [*statement.body, *statement.orelse]))
        )
        for statement in tree.body
    )


def _asserts(tree: ast.Module) -> bool:
    """Is there an assertion that no function has to itself?"""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        statement = pending.pop()
        if isinstance(statement, ast.Assert):
            return True
        if isinstance(statement, ast.If | ast.For | ast.While | ast.With | ast.Try):
            pending += [*statement.body, *getattr(statement, "orelse", [])]
    return False


def _shows_equality(node: ast.expr, truths: set[str]) -> bool:
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(p, ast.FormattedValue) and _shows_equality(p.value, truths) for p in node.values)
    if isinstance(node, ast.IfExp):
        return _shows_equality(node.test, truths)
    return _is_equality(node) or (isinstance(node, ast.Name) and node.id in truths)


def _is_equality(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return any(map(_is_equality, node.values))
    if isinstance(node, ast.Compare):
        return all(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
    if isinstance(node, ast.Call):
        return called_name(node) in ("isclose", "allclose", "array_equal", "equals")
    return False


def _is_print(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and statement.value.func.id == "print"
    )


def _prints_text(statement: ast.stmt) -> bool:
    return _is_print(statement) and any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in statement.value.args
    )


def _ends_at_a_tolerance(node: ast.AST) -> bool:
    return isinstance(node, ast.While) and any(map(_is_tolerance, ast.walk(node.test)))


def _is_tolerance(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float) and 0 < node.value < _SMALL
    return isinstance(node, ast.Name) and node.id.lower() in ("tol", "eps", "epsilon", "tolerance")
