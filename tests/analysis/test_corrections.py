"""Self-corrections that were planted are found, and what only looks like one is not."""

from __future__ import annotations

import pytest

from planted import MALFORMED, failed, ran, respond
from retool.analysis import SelfCorrection, self_corrections
from retool.types import CallStatus

BROKEN = "coins = [1, 5, 10]\nprint(greedy(63, coins))"
REPAIRED = (
    "def greedy(n, coins):\n    used = []\n    for c in sorted(coins, reverse=True):\n        while n >= c:\n"
    "            n -= c\n            used.append(c)\n    return used\n\ncoins = [1, 5, 10]\nprint(greedy(63, coins))"
)
OOPS = "Oops, the functions need to be defined in the same scope. Let me correct the code."


def found(*parts) -> list[tuple[int, int]]:
    return [(each.failed, each.fixed) for each in self_corrections(respond(*parts))]


def test_the_papers_example() -> None:
    (correction,) = self_corrections(respond("I try.", failed(BROKEN), OOPS, ran(REPAIRED), "So 9 coins."))
    assert correction == SelfCorrection(0, 1, "NameError: name 'greedy' is not defined", OOPS, True, 1)


@pytest.mark.parametrize(
    ("broken", "error", "status", "words", "repaired"),
    [
        ("print(10 / 0)", "ZeroDivisionError: division by zero", "error", "We divided by zero.", "print(10 / 4)"),
        ("print(7 * 8", "SyntaxError: '(' was never closed", "error", "A bracket is missing.", "print(7 * 8)"),
        (
            "for i in range(3):\nprint(i)",
            "IndentationError: expected an indented block",
            "error",
            "The indentation is off.",
            "for i in range(3):\n    print(i)",
        ),
        (
            "from math import sqroot\nprint(sqroot(144) + 5)",
            "ImportError: cannot import name 'sqroot' from 'math'",
            "error",
            "There is no sqroot in math.",
            "from math import sqrt\nprint(sqrt(144) + 5)",
        ),
        (
            "n = 600851475143\nprint([d for d in range(2, n) if n % d == 0])",
            "The code was stopped after 5 s.",
            "time_limit",
            "That is too slow, so only up to the root.",
            "n = 600851475143\nprint([d for d in range(2, int(n**0.5)) if n % d == 0])",
        ),
        (
            "rows = [[0] * 10**9 for _ in range(10**6)]\nprint(sum(map(sum, rows)))",
            "MemoryError",
            "memory_limit",
            "This takes too much memory.",
            "rows = ([0] * 10**3 for _ in range(10**6))\nprint(sum(map(sum, rows)))",
        ),
    ],
)
def test_an_error_a_diagnosis_changed_code_and_a_success(broken, error, status, words, repaired) -> None:
    (correction,) = self_corrections(respond(failed(broken, error, CallStatus(status)), words, ran(repaired)))
    assert (correction.failed, correction.fixed, correction.error) == (0, 1, error)
    assert correction.diagnosed and correction.diagnosis == words


def test_a_repair_that_is_announced_may_change_everything() -> None:
    broken, repaired = failed("print(answer)", "NameError: name 'answer' is not defined"), ran("print(6 * 7)", "42")
    assert found(broken, "That name is undefined. Let me fix it.", repaired) == [(0, 1)]
    assert found(broken, "That name is undefined.", repaired) == []
    later = "Now I fix the product.", repaired
    assert found(broken, "That name is undefined. First the sum.", ran("print(2 + 2)"), *later) == []
    assert found(broken, "I fix that later.", ran("print(2 + 2)"), "Now:", repaired) == []


FIB = "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint(fib(100))"
LOOP = "a, b = 0, 1\nfor _ in range(100):\n    a, b = b, a + b\nprint(a)"
TOO_LONG = failed(FIB, "The code was stopped after 5 s.", CallStatus.TIME_LIMIT)


def test_after_too_much_work_another_way_is_a_correction() -> None:
    (correction,) = self_corrections(respond(TOO_LONG, "That takes too long. An iterative method:", ran(LOOP)))
    assert correction.diagnosed
    assert found(failed(FIB, "RecursionError: maximum recursion depth exceeded"), "Use a loop.", ran(LOOP)) == [(0, 1)]


def test_another_way_has_something_in_common_and_comes_next() -> None:
    words = "That takes too long. An iterative method:"
    assert found(TOO_LONG, words, ran("print(7 * 2)")) == []  # single digits are in any code
    assert found(TOO_LONG, "That takes too long.", ran(LOOP)) == []
    assert found(TOO_LONG, "First the sum.", ran("print(7 * 8)"), words, ran(LOOP)) == []
    assert found(failed(FIB, "NameError: name 'x' is not defined"), words, ran(LOOP)) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ImportError: cannot import name 'primes' from 'sympy'", "The function is called primerange."),
        ("ModuleNotFoundError: No module named 'gmpy2'", "That library is not installed."),
        ("AttributeError: module 'sympy' has no attribute 'Solve'", "It is in lower case."),
        ("IndexError: list index out of range", "Indices start at 0."),
        ("KeyError: 'b'", "Only a is a key."),
        ("ValueError: math domain error", "The square root of a negative number is complex."),
        ("TypeError: can only concatenate str", "One of them is a string."),
        ("ZeroDivisionError: division by zero", "The range begins at 0."),
        ("SyntaxError: invalid syntax", "There is a colon after a loop's head."),
        ("AssertionError", "So the assumption does not hold."),
        ("RecursionError: maximum recursion depth exceeded", "It has to be a loop."),
    ],
)
def test_words_for_what_an_error_is_about_are_a_diagnosis_of_that_error(error: str, words: str) -> None:
    (correction,) = self_corrections(respond(failed(BROKEN, error), words, ran(REPAIRED)))
    assert correction.diagnosed
    (other,) = self_corrections(respond(failed(BROKEN, "OSError: disk full"), words, ran(REPAIRED)))
    assert not other.diagnosed


def test_code_may_be_changed_without_a_word() -> None:
    (correction,) = self_corrections(respond(failed(BROKEN), ran(REPAIRED)))
    assert not correction.diagnosed and correction.diagnosis == ""


def test_words_that_do_not_refer_to_the_error_are_no_diagnosis() -> None:
    (correction,) = self_corrections(respond(failed(BROKEN), "The answer must be positive.", ran(REPAIRED)))
    assert not correction.diagnosed


def test_two_attempts_and_a_success_are_one_correction() -> None:
    parts = [failed(BROKEN), OOPS, failed(REPAIRED.replace("sorted", "sort")), "A typo.", ran(REPAIRED)]
    (correction,) = self_corrections(respond(*parts))
    assert (correction.failed, correction.fixed, correction.attempts) == (0, 2, 2)
    assert correction.diagnosis == f"{OOPS}\nA typo."


def test_two_errors_in_different_code_are_two_corrections() -> None:
    parts = [failed("print(1 / 0)"), failed(BROKEN), ran("print(1 / 2)"), ran(REPAIRED)]
    assert found(*parts) == [(0, 2), (1, 3)]


def test_other_code_may_run_in_between() -> None:
    assert found(failed(BROKEN), ran("print(2 + 2)"), ran(REPAIRED)) == [(0, 2)]


@pytest.mark.parametrize(
    "parts",
    [
        [failed(BROKEN), OOPS, ran(BROKEN)],  # the same again
        [failed(BROKEN), OOPS, ran(f"# now with a comment\n\n{BROKEN}")],
        [failed(BROKEN), OOPS, failed(BROKEN), OOPS, ran(BROKEN)],
        [failed(BROKEN), OOPS, ran(BROKEN), ran(REPAIRED)],  # it had succeeded before it was changed
        [failed(BROKEN), "Leave that.", ran("print(sum(range(101)))")],  # something else
        [failed("total = a + b\nprint(total)"), "Now the perimeter.", ran("total = 2 * (3 + 4)\nprint(total)")],
        [failed(BROKEN), "That is an error. Let me compute the area.", ran("import math\nprint(math.pi * 7**2)")],
        [failed("import math\nprint(math.sqroot(16))"), ran("import math\nprint(math.factorial(5))")],
        [failed(BROKEN), OOPS, failed(REPAIRED)],  # never succeeds
        [failed(BROKEN), OOPS, "So I guess 9."],
        [ran(BROKEN), OOPS, ran(REPAIRED)],  # nothing failed
        [ran("print('Error: none')", "Error: none"), "An error!", ran("print('Error: nothing')")],
        [ran(REPAIRED), failed(BROKEN)],  # the other way round
        [failed("", "Nothing was executed.", MALFORMED), "A mistake.", ran("print(1)")],  # nothing ran
        [failed(BROKEN, "the sandbox is gone", CallStatus.SANDBOX_ERROR), OOPS, ran(REPAIRED)],  # not its fault
    ],
)
def test_what_is_none(parts) -> None:
    assert found(*parts) == []


def test_texts_without_ids_have_them_too() -> None:
    (correction,) = self_corrections(respond(failed(BROKEN), OOPS, ran(REPAIRED), ids=False))
    assert correction.diagnosis == OOPS


def test_hostile_code_does_not_break_it() -> None:
    deep = f"x = {'(' * 5000}1{')' * 5000}"
    long = f"x = {'1 + ' * 5000}1"
    null, surrogate = "x = '\0'", "x = '\ud800'"
    signs, chain, huge = f"x = {'-' * 20000}1", f"x = y{'.a' * 20000}", f"x = 0x{'f' * 20000}"
    for broken in (deep, long, null, surrogate, signs, chain, huge):
        assert found(failed(f"{broken}\nprint(y1, y2)"), ran("y1 = y2 = 3\nprint(y1, y2)")) in ([], [(0, 1)])
        assert found(failed(broken), ran(broken)) == []
