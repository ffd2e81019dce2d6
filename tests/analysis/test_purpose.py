"""The purpose of a snippet, from its syntax and its context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted import MALFORMED, failed, ran, respond
from retool.analysis import Purpose, purposes

CALCULATION = ["print(17**23 % 1009)", "price = 12.5\nprint(price * 3 + 4)", "print(sum(range(1, 101)))"]
CALCULATION += [
    "print(sum(int(d) for d in str(2**100)))",
    "print(sum(n**2 for n in range(2, 7 + 1)))",
    "print([n**2 for n in range(10)])",
    "import math\nprint(math.comb(10, 3))",
    "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\nprint(fib(30))",
    "n, k = 27, 0\nwhile n != 1:\n    if n % 2:\n        n = 3 * n + 1\n    else:\n        n //= 2\n    k += 1",
    "i, total = 1, 0\nwhile i <= 10:\n    total += i\n    i += 1\nprint(total)",
    "from sympy import factorint\nprint(factorint(360))",
]
SEARCH = [
    "for a in range(1, 100):\n    for b in range(a, 100):\n        if a * a + b * b == 2500:\n            print(a, b)",
    "print([n for n in range(1000) if n % 7 == 3])",
    "print(sum(1 for n in range(1000) if n % 7 == 3))",
    "from itertools import permutations\nprint(max(a - b for a, b in permutations(range(5), 2)))",
    "n = 1\nwhile n * n % 1009 != 5:\n    n += 1\nprint(n)",
    "n = 0\nwhile True:\n    if n % 11 == 3 and n % 13 == 5:\n        break\n    n += 1\nprint(n)",
    "print(max(range(1, 100), key=lambda n: n * (100 - n)))",
    "numbers = list(range(1, 21))\nprint([n for n in numbers if n % 2 == 0])",
    "best = 0\nfor n in range(100):\n    v = n * (100 - n)\n    if v > best:\n        best = v\nprint(best)",
    "best = None\nfor n in range(9):\n    if best is None or n * n > best[0]:\n        best = (n * n, n)\nprint(best)",
    "print(sum(n % 10 == 0 or n % 18 == 0 for n in range(1, 293 + 1)))",
    "import numpy as np\nn = np.arange(1000)\nprint(n[(n % 7 == 3) & (n % 5 == 4)][0])",
]
SYMBOLIC = [
    "from sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))",
    "import sympy as sp\nx = sp.Symbol('x')\nprint(sp.integrate(sp.sin(x), (x, 0, sp.pi)))",
    "from sympy import *\nx = Symbol('x')\nprint(simplify((x**2 - 1) / (x - 1)))",
    "import sympy\nx, y = sympy.symbols('x y')\nfor s in sympy.solve([x + y - 5, x - y - 1]):\n    print(s)",
]
SIMULATION = [
    "import random\nhits = 0\nfor _ in range(10000):\n    if random.random() < 0.5:\n        hits += 1\nprint(hits)",
    "import numpy as np\nrng = np.random.default_rng(0)\nprint(rng.integers(6, size=1000).mean())",
    "def simulate(days):\n    n = 5\n    for _ in range(days):\n        n *= 2\n    return n\nprint(simulate(80))",
    "from random import choice\nprint(sum(choice([0, 1]) for _ in range(100)))",
]
NUMERICAL = [
    "from scipy.optimize import minimize\nprint(minimize(lambda x: (x - 2)**2, 0).x)",
    "import numpy as np\nprint(np.linalg.solve([[1, 2], [3, 4]], [5, 6]))",
    "lo, hi = 0.0, 2.0\nwhile hi - lo > 1e-9:\n    m = (lo + hi) / 2\n    lo, hi = (m, hi) if m * m < 2 else (lo, m)",
    "import scipy.integrate as si\nprint(si.quad(lambda x: x**2, 0, 1))",
]
VERIFICATION = [
    "x = 3\nassert x**2 - 9 == 0\nprint('ok')",
    "print(2**10 == 1024)",
    "a, b = 3, 4\nprint(f'right: {a + b == 7 and a * b == 12}')",
    "x = 5\nis_right = 2 * x == 10\nprint(is_right)",
    "x = 5\nprint('yes' if 2 * x == 10 else 'no')",
    "import math\nprint(math.isclose(math.sqrt(2)**2, 2))",
    "left, right = 3 * 4, 2 * 6\nif left == right:\n    print('correct')\nelse:\n    print('wrong')",
    "for x in [2, 3]:\n    assert x**2 - 5 * x + 6 == 0",
]
PLOTTING = [
    "import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.show()",
    "from matplotlib import pyplot\nimport numpy as np\nx = np.linspace(0, 1)\npyplot.plot(x, x**2)",
]
DATA = [
    "from collections import Counter\nprint(Counter('mississippi'))",
    "import datetime\nprint(datetime.date(2024, 2, 28) + datetime.timedelta(days=2))",
    "words = 'a quick brown fox'.split()\nprint(len(words))",
    "import statistics\nprint(statistics.median([3, 1, 2]))",
]
OTHER = ["", "pass", "import math", "print('hello')", "x = 5\nprint(x)", "def ("]
PLANTED = [
    (purpose, code)
    for purpose, codes in {
        Purpose.CALCULATION: CALCULATION,
        Purpose.SEARCH: SEARCH,
        Purpose.SYMBOLIC: SYMBOLIC,
        Purpose.SIMULATION: SIMULATION,
        Purpose.NUMERICAL: NUMERICAL,
        Purpose.VERIFICATION: VERIFICATION,
        Purpose.PLOTTING: PLOTTING,
        Purpose.DATA: DATA,
        Purpose.OTHER: OTHER,
    }.items()
    for code in codes
]


@pytest.mark.parametrize(("purpose", "code"), PLANTED)
def test_what_the_syntax_says(purpose: Purpose, code: str) -> None:
    assert purposes(respond("Now I go on.", ran(code))) == [purpose]


@pytest.mark.parametrize(
    "words",
    [
        "Let me verify this with code.",
        "To confirm the result, run:",
        "I double-check the sum.",
        "As a sanity check, compute it directly.",
        "Let's check our answer.",
        "Let me make sure by brute force.",
        "So x is 24. Check whether it is correct:",
        "I think that it is 24. Is that right?",
        "Substituting this back into the equation:",
    ],
)
def test_words_that_announce_a_check(words: str) -> None:
    assert purposes(respond(words, ran("print(12 * 2)", "24"))) == [Purpose.VERIFICATION]


def test_a_method_is_named_by_words() -> None:
    code = "lo, hi = 0, 2\nfor _ in range(50):\n    m = (lo + hi) / 2\n    lo, hi = (m, hi) if m**3 < 2 else (lo, m)"
    assert purposes(respond("By bisection:", ran(code))) == [Purpose.NUMERICAL]


def test_to_be_careful_is_no_check() -> None:
    assert purposes(respond("Make sure to convert hours to minutes.", ran("print(3 * 60)"))) == [Purpose.CALCULATION]


def test_a_check_of_all_candidates_is_a_search() -> None:
    each = "We verify each candidate.", ran("print([n for n in range(100) if n % 7 == 3])", "[3, 10]")
    assert purposes(respond(*each)) == [Purpose.SEARCH]
    parts = "We check each n below 100.", ran("print([n for n in range(100) if n % 7 == 3])", "[3, 10]")
    assert purposes(respond(*parts)) == [Purpose.SEARCH]


def test_a_hint_counts_where_the_result_was_known() -> None:
    code = ran("print(12 * 13)", "156")
    assert purposes(respond("I get 156. Let me check with Python.", code)) == [Purpose.VERIFICATION]
    assert purposes(respond("Let me check with Python what 12 * 13 is.", code)) == [Purpose.CALCULATION]


def test_a_result_that_an_earlier_call_had_is_checked_another_way() -> None:
    parts = "First:", ran("print(sum(range(101)))", "5050"), "Another way:", ran("print(100 * 101 // 2)", "5050")
    assert purposes(respond(*parts)) == [Purpose.CALCULATION, Purpose.VERIFICATION]


def test_what_announced_one_call_does_not_announce_the_next() -> None:
    parts = "Let me verify.", ran("print(3 * 4)", "12"), "Now the area.", ran("print(5 * 6)", "30")
    assert purposes(respond(*parts)) == [Purpose.VERIFICATION, Purpose.CALCULATION]


def test_only_the_words_near_a_call_announce_it() -> None:
    words = "We will verify it later.\n\nFirst the product:"
    assert purposes(respond(words, ran("print(3 * 4)", "12"))) == [Purpose.CALCULATION]


def test_code_with_a_syntax_error_is_judged_by_what_stands_before_it() -> None:
    broken = "import random\nx = random.random()\nprint(x"
    assert purposes(respond(failed(broken))) == [Purpose.SIMULATION]
    assert purposes(respond(failed("print x"))) == [Purpose.OTHER]
    assert purposes(respond("Let me verify.", failed("print x"))) == [Purpose.VERIFICATION]


def test_a_call_with_nothing_to_run_has_no_purpose() -> None:
    assert purposes(respond("Let me verify.", failed("", "Nothing was executed.", MALFORMED))) == [Purpose.OTHER]


def test_no_call_no_purpose() -> None:
    assert purposes(respond("It is 4.")) == []


@given(st.text(max_size=60))
def test_any_text_as_code_has_one(code: str) -> None:
    assert len(purposes(respond("So:", ran(code)))) == 1
