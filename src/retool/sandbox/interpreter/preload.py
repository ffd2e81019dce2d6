"""What each kind of zygote imports before the first execution, and which kind a piece of code needs.

Importing SymPy takes most of a second, and its first calls as long again, while caches fill and parts load. A zygote
pays that once: it imports, works through small problems of the kinds that models pose, and forks from there. On the
other hand every library that a zygote holds makes each of its forks slower. So there are three kinds.
"""

import importlib
import importlib.util
import os
import re
import site
import sys
from collections.abc import Callable

_STANDARD_LIBRARY = (
    "ast",
    "atexit",
    "bisect",
    "builtins",
    "cmath",
    "collections",
    "collections.abc",
    "contextlib",
    "copy",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "io",
    "itertools",
    "linecache",
    "math",
    "numbers",
    "operator",
    "os",
    "random",
    "re",
    "string",
    "struct",
    "sys",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
)

_SAMPLE = """
import numpy as np
from sympy import Rational, exp, factor, integrate, simplify, solve, symbols
x, y = symbols("x y")
print(solve(x**2 - 5 * x + 6, x), solve([x + y - 5, x - y - 1], [x, y]))
print(simplify((x**2 - 1) / (x - 1)), factor(x**3 - x), Rational(1, 3) + Rational(1, 6))
print(integrate(x**2 * exp(-x), x), integrate(x**2, (x, 0, 1)))
print(np.linalg.solve(np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([3.0, 5.0])), np.arange(10).sum())
for k in range(3):
    print(f"{k}: {sum(i * i for i in range(k))}")
"""

_NEEDS_SCIPY = re.compile(r"\b(?:scipy|sklearn|statsmodels)\b")
_NEEDS_NUMPY_OR_SYMPY = re.compile(r"\b(?:numpy|sympy|mpmath|pandas|matplotlib|networkx)\b")


def preload(kind: str) -> None:
    """Import what zygotes of `kind` hold, with nothing on `sys.path` but the interpreter's own libraries.

    The hooks that modules want to be run after a fork are left out: they renew locks, which nothing holds in a process
    of one thread, and reseed `random`, which each child does itself. They would take half of the time of a fork.
    """
    _keep_runtime_path()
    register = os.register_at_fork
    os.register_at_fork = lambda **hooks: None
    try:
        _PRELOADS[kind]()
    finally:
        os.register_at_fork = register


def kind_of(code: str) -> str:
    """The zygote that `code` should run in. Only speed depends on it: each kind can import everything.

    The name of a library anywhere in the text decides. Parsing would be more exact, but it would expose the
    supervisor to hostile code (depth and size that bring the parser down), and a comment that names NumPy is rare.
    """
    if _NEEDS_SCIPY.search(code):
        return "scipy"
    return "scientific" if _NEEDS_NUMPY_OR_SYMPY.search(code) else "light"


def sample(kind: str) -> str:
    """A program such as zygotes of `kind` are for, where running one touches much memory. Empty where it does not."""
    return "" if kind == "light" else _SAMPLE


def _keep_runtime_path() -> None:
    """Leave on `sys.path` only what belongs to the interpreter, so that code sees libraries and no project files."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    own = [os.path.join(prefix, "") for prefix in prefixes]
    if site.ENABLE_USER_SITE:
        own.append(site.getusersitepackages())
    sys.path[:] = [entry for entry in sys.path if entry.startswith(tuple(own))]


def _preload_light() -> None:
    """What the sandbox itself needs, and the small parts of the standard library that models import most."""
    for name in _STANDARD_LIBRARY:
        importlib.import_module(name)
    sys.set_int_max_str_digits(0)


def _preload_scientific() -> None:
    """NumPy and SymPy besides, warmed up."""
    _preload_light()
    _warm_numpy()
    _warm_sympy()


def _preload_scipy() -> None:
    """SciPy besides, where it is installed."""
    _preload_scientific()
    if importlib.util.find_spec("scipy"):
        for name in ("integrate", "interpolate", "linalg", "optimize", "sparse", "special", "stats"):
            importlib.import_module(f"scipy.{name}")


_PRELOADS: dict[str, Callable[[], None]] = {
    "light": _preload_light,
    "scientific": _preload_scientific,
    "scipy": _preload_scipy,
}
KINDS = tuple(_PRELOADS)


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
    for polynomial in (x**2 - 3 * x + 1, x**3 + x - 2, x**3 + 3 * x + 5, x**4 - 5 * x**2 + 4, x**5 - x):
        str(sp.solve(polynomial, x))
    sp.solve([x + y - 3, x - y - 1], [x, y])
    sp.solve(sp.Eq(2**x, 8), x)
    sp.solveset(x**2 - 2, x, domain=sp.S.Reals)
    sp.diff(sp.exp(x) * sp.log(x), x)
    sp.integrate(x**2 + 1 / x, (x, 1, 2))
    powers = (x**3, sp.sqrt(x), 1 / x, 1 / (1 + x**2), 1 / (x**2 - 4))
    exponentials = (sp.exp(-x) * x, sp.log(x), x * sp.log(x), sp.exp(x) * sp.sin(x))
    trigonometric = (sp.tan(x), sp.sin(x) ** 2, sp.sin(x) * sp.cos(x), x * sp.cos(x), x**2 * sp.cos(2 * x))
    for integrand in (*powers, *exponentials, *trigonometric):
        str(sp.integrate(integrand, x))
    sp.limit(sp.sin(x) / x, x, 0)
    sp.series(sp.exp(x), x, 0, 3)
    sp.summation(n, (n, 1, 5))
    sp.Matrix([[1, 2], [3, 5]]).inv()
    sp.Rational(3, 4) + sp.sqrt(8)
    sp.factorint(360), sp.divisors(28), sp.isprime(97), sp.gcd(12, 18), sp.lcm(4, 6), sp.totient(36)
    sp.N(sp.pi, 30), sp.latex(x / 2), str(sp.sqrt(2) * x)
    sp.nsolve(sp.cos(x) - x, x, 1)
    sp.Eq(x, 1), sp.Abs(-x), sp.floor(sp.Rational(7, 2))
