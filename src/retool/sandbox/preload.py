"""What each kind of zygote imports before the first execution, and which kind a piece of code needs.

Importing SymPy takes most of a second, and its first calls as long again, while caches fill and parts load. A zygote
pays that once: it imports, works through small problems of the kinds that models pose, and forks from there.
"""

import importlib
import re
import sys
from collections.abc import Callable

_STANDARD_LIBRARY = (
    "ast",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "numbers",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
)

_NEEDS_SCIENTIFIC = re.compile(r"\b(?:numpy|sympy|mpmath|scipy|pandas|matplotlib|networkx)\b")


def preload_light() -> None:
    """The parts of the standard library that models import."""
    for name in _STANDARD_LIBRARY:
        importlib.import_module(name)
    sys.set_int_max_str_digits(0)


def preload_scientific() -> None:
    """NumPy and SymPy besides, warmed up."""
    preload_light()
    _warm_numpy()
    _warm_sympy()


PRELOADS: dict[str, Callable[[], None]] = {"light": preload_light, "scientific": preload_scientific}


def kind_of(code: str) -> str:
    """The zygote that `code` should run in. Only speed depends on it: each kind can import everything.

    The name of a library anywhere in the text decides. Parsing would be more exact, but it would expose the
    supervisor to hostile code (depth and size that bring the parser down), and a comment that names NumPy is rare.
    """
    return "scientific" if _NEEDS_SCIENTIFIC.search(code) else "light"


def _warm_numpy() -> None:
    import numpy as np

    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    np.linalg.solve(a, a @ np.ones(2))
    np.linalg.eigvalsh(a)
    np.arange(10).reshape(2, 5).sum(axis=0).tolist()
    np.random.seed(0)
    np.random.default_rng(0).integers(0, 9, 3)
    str(np.linspace(0, 1, 3))


def _warm_sympy() -> None:
    import sympy as sp

    x, y = sp.symbols("x y")
    n = sp.symbols("n", integer=True, positive=True)
    sp.simplify(sp.sin(x) ** 2 + sp.cos(x) ** 2)
    sp.factor(sp.expand((x + 1) ** 3 * (x - 2)))
    for polynomial in (x**2 - 3 * x + 1, x**3 + x - 2, x**4 - 5 * x**2 + 4):
        sp.solve(polynomial, x)
    sp.solve([x + y - 3, x - y - 1], [x, y])
    sp.solveset(x**2 - 2, x, domain=sp.S.Reals)
    sp.diff(sp.exp(x) * sp.log(x), x)
    sp.integrate(x**2 + 1 / x, (x, 1, 2))
    for integrand in (sp.exp(-x) * x, sp.log(x), x**2 * sp.cos(2 * x), sp.exp(x) * sp.sin(x), 1 / (1 + x**2)):
        sp.integrate(integrand, x)
    sp.limit(sp.sin(x) / x, x, 0)
    sp.series(sp.exp(x), x, 0, 3)
    sp.summation(n, (n, 1, 5))
    sp.Matrix([[1, 2], [3, 5]]).inv()
    sp.Rational(3, 4) + sp.sqrt(8)
    sp.factorint(360), sp.isprime(97), sp.gcd(12, 18)
    sp.N(sp.pi, 30), sp.latex(x / 2), str(sp.sqrt(2) * x)
    sp.nsolve(sp.cos(x) - x, x, 1)
    sp.Eq(x, 1), sp.Abs(-x), sp.floor(sp.Rational(7, 2))
