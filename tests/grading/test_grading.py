"""Finding an answer, and comparing it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.errors import RetoolError
from retool.grading import Grader, extract_answer
from retool.grading.grade import exact_integer

balanced = st.recursive(
    st.text("ab 1\\,", max_size=4).filter(lambda text: not text.endswith("\\")),
    lambda inner: st.tuples(inner, inner).map(lambda pair: f"{pair[0]}{{{pair[1]}}}"),
    max_leaves=6,
)


@given(balanced, st.text("xyz {", max_size=8), st.text("xyz }", max_size=8))
def test_the_content_of_a_box_comes_back_whatever_is_nested_in_it(content: str, before: str, after: str) -> None:
    assert extract_answer([f"{before}\\boxed{{{content}}}{after}"]) == content.strip()


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        (["\\boxed{1} and \\boxed{2}"], "2"),
        (["\\boxed{\\frac{1}{2}}"], "\\frac{1}{2}"),
        (["\\boxed{a\\}b}"], "a\\}b"),
        (["\\fbox{3}"], "3"),
        (["\\boxed {4}"], "4"),
        (["\\boxed{1} then \\boxed{2"], "1"),  # cut short
        (["\\boxed{1}", "no box here"], "1"),
        (["\\boxed{1", "2}"], None),  # never joined across spans
        (["\\boxed{1}", "\\boxed{2", "}"], "1"),
        (["\\boxed{1 \\boxed{2}"], "2"),
        (["\\boxed{1 \\boxed{2} 3}"], "2"),
        (["} \\boxed{1} {"], "1"),
        (["\\boxed{}"], ""),
        (["\\boxed 5"], None),
        (["the answer is 5"], None),
        ([], None),
    ],
)
def test_the_last_complete_box_inside_one_span_is_the_answer(texts: list[str], answer: str | None) -> None:
    assert extract_answer(texts) == answer


@given(st.lists(st.text("\\boxed{} 1", max_size=20), max_size=3), balanced)
def test_a_box_that_is_cut_in_two_is_none_and_a_whole_one_after_it_counts(texts: list[str], content: str) -> None:
    box = f"\\boxed{{{content}}}"
    for cut in range(1, len(box)):
        assert extract_answer([box[:cut], box[cut:]]) is None
    assert extract_answer([*texts, box]) == content.strip()


def test_a_thousand_open_boxes_are_read_at_once() -> None:
    began = time.monotonic()
    assert extract_answer(["\\boxed{" * 10_000]) is None
    assert time.monotonic() - began < 2


@given(st.integers())
def test_integers_are_read_however_they_are_written(n: int) -> None:
    for text in (str(n), f"{n:,}", f" {n}.0", f"${n}$", f"\\${n}", f"{n:,}".replace(",", "{,}")):
        assert exact_integer(text) == n


@pytest.mark.parametrize("text", ["", "x", "1.5", "1/2", "1,23", "1 2", "--1", "1e3", "0x10", "∞"])
def test_what_is_no_integer_is_not_read_as_one(text: str) -> None:
    assert exact_integer(text) is None


def test_integers_have_as_many_digits_as_they_like() -> None:
    with Grader() as grader:
        assert grader.grade("9" * 5000, "9" * 5000) is True
        assert grader.grade("9" * 5000, "9") is False
        assert grader._worker is None


@given(st.integers(), st.integers())
def test_integers_are_compared_exactly_and_without_a_worker(a: int, b: int) -> None:
    with Grader() as grader:
        assert grader.grade(str(a), str(b)) == (a == b)
        assert grader._worker is None


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("007", "7", True),
        ("\\frac{1}{2}", "0.5", True),
        ("1/2", "\\frac12", True),
        ("(1, 2)", "(1,2)", True),
        ("x+1", "1+x", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("\\text{Monday}", "Monday", True),
        ("50\\%", "0.5", True),
        ("x = 5", "5", True),
        ("\\{1, 2\\}", "\\{2, 1\\}", True),
        ("x^2 + 2x + 1", "(x + 1)^2", True),
        ("x > 1", "1 < x", True),
        ("x > 1", "x < 1", False),
        ("x \\ge 1", "x > 1", False),
        ("[1, 2)", "[1, 2]", False),
        ("\\frac{1", "1", False),
        ("no idea", "1", False),
        ("0.333", "1/3", False),
        ("12", "13", False),
        ("(2, 1)", "(1, 2)", False),
        ("2 1/2", "21/2", False),
        ("2 1/2", "\\frac52", True),
        ("1.5", "1 1/2", True),
        ("5/9", "0.\\overline{5}", True),
        ("0.1\\overline 6", "1/6", True),
        ("0", "0.\\overline{5}", False),
        ("0.\\overline{6}", "0.\\overline{5}", False),
        ("0.5", "0.\\overline{5}", False),
        ("0.333333", "1/3", True),
        ("0.0000671", ".0000672", False),
        ("6.72 \\times 10^{-5}", ".0000672", True),
        ("0", "0.0000001", False),
        ("\\{1, 2\\}", "(1, 2)", False),
        ("(1, 2)", "\\{1, 2\\}", False),
        ("[\\frac12, \\frac13]", "\\left(\\frac12, \\frac13\\right)", False),
        ("(0, \\pi) \\cup (4, 5]", "(0, \\pi] \\cup (4, 5)", False),
        ("(4, 5) \\cup (0, 1]", "(0, 1] \\cup (4, 5)", True),
        ("(4, 5) \\cup (0, 1)", "(0, 1] \\cup (4, 5)", False),
        ("-2 \\le x \\le 7", "[-2, 7]", True),
        ("-2 < x \\le 7", "[-2, 7]", False),
        ("", "1", False),
        ("\\text{}", "1", False),
        (None, "1", False),
    ],
)
def test_equal_is_what_is_mathematically_equal(grader: Grader, answer: str | None, reference: str, equal: bool) -> None:
    assert grader.grade(answer, reference) is equal


MATH_500 = [  # as its references are written, with answers that a model would give
    ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)"),
    ("p-q", "p - q"),
    ("\\frac{14}{3}", "\\dfrac{14}{3}"),
    ("Evelyn", "\\text{Evelyn}"),
    ("90", "90^\\circ"),
    ("3\\sqrt{13}", "\\sqrt{117}"),
    ("32348", "\\$32,\\!348"),
    ("C", "\\text{(C)}"),
    ("5", "5\\text{ cm}"),
    ("-2,1", "1,-2"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(-\\infty,2)\\cup(3,\\infty)"),
    ("x \\in [-2,7]", "[-2,7]"),
    (
        "\\begin{bmatrix} -1/3 \\\\ 2/3 \\end{bmatrix}",
        "\\begin{pmatrix} -\\frac{1}{3} \\\\ \\frac{2}{3} \\end{pmatrix}",
    ),
    ("4210", "4210_{5}"),
    ("y = 2x + 3", "y=2x+3"),
    ("50\\%", "50"),
    ("6r^2 - 4r - 24", "-24 - 4r + 6r^2"),
    ("June 20", "\\text{June 20}"),
    ("\\text{A and B}", "A and B"),
]


@pytest.mark.parametrize(("answer", "reference"), MATH_500)
def test_answers_to_math_500_are_right_in_either_notation(grader: Grader, answer: str, reference: str) -> None:
    assert grader.grade(answer, reference) is True
    assert grader.grade(reference, reference) is True


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("4210_5", "4210_{5}", True),
        ("4210_{5}", "4210_{6}", False),
        ("18 dollars", "18", True),
        ("18\\text{ miles per hour}", "18.0", True),
        ("\\text{18 dollars}", "18", True),
        ("\\$2.50 dollars", "2.5", True),
        ("18 million", "18", False),
        ("18 xy", "18", False),
        ("18 dollars", "19", False),
        ("18 dollars", "x", False),
        ("1\\,000", "1000", True),
        ("10\\,080", "10,080", True),
        ("1 000", "1000", False),
        ("12_7", "12", False),
        ("12_{10}", "12", True),
        ("9", "9 (apples)", True),
        ("9 apples", "9 (apples)", True),
        ("9 ripe apples", "9 apples", True),
        ("9 oranges", "9 apples", False),
        ("8", "9 apples", False),
        ("6 hrs", "6\\text{ hours}", True),
        ("6 minutes", "6\\text{ hours}", False),
        ("360 minutes", "6 hours", False),
        ("5 centimeters", "5\\mbox{ cm}", True),
        ("5\\text{ m}", "5 cm", False),
        ("15 \\text{ square inches}", "15\\mbox{ in}^2", True),
        ("15 \\text{ cm}", "15\\mbox{ cm}^2", False),
        ("\\frac{1}{2} \\text{ hour}", "\\frac12 \\text{ hours}", True),
        ("\\frac{1}{2} \\text{ minute}", "\\frac12 \\text{ hours}", False),
        ("5 dollars", "\\$5", True),
        ("5 cents", "$5", False),
        ("5\\%", "\\$5", False),
        ("10:15 a.m.", "10:15\\text{ p.m.}", False),
    ],
)
def test_bases_and_units(grader: Grader, answer: str, reference: str, equal: bool) -> None:
    assert grader.grade(answer, reference) is equal


@pytest.mark.parametrize("content", ["A and B", "x + 1", "7:30", "(1, 2]"])
@pytest.mark.parametrize(
    "written", ["${}$", "{}.", " {} ", "\\({}\\)", "\\text{{{}}}", "\\displaystyle {}", "\\,{}\\;", "\\mathrm{{{}}}"]
)
def test_what_differs_in_looks_only_is_equal_at_once(written: str, content: str) -> None:
    with Grader() as grader:
        assert grader.grade(written.format(content), content) is True
        assert grader.grade(content, written.format(content)) is True
        assert grader._worker is None


def test_an_answer_that_takes_forever_is_wrong_and_counted() -> None:
    with Grader(seconds=1.0) as grader:
        assert grader.grade("1/2", "0.5") is True
        began = time.monotonic()
        assert grader.grade("9^{9^{9^9}}", "3") is False
        assert time.monotonic() - began < 10
        assert grader.timeouts == 1
        assert grader.grade("3/4", "0.75") is True


def test_a_worker_that_dies_is_replaced(grader: Grader) -> None:
    grader.grade("1 + x", "x + 1")
    grader._worker.kill()
    grader._worker.wait()
    assert grader.grade("7/4", "1.75") is True


def test_a_worker_that_is_killed_over_a_question_costs_that_question_only() -> None:
    with Grader() as grader:
        assert grader.grade("1/2", "0.5") is True
        killer = threading.Timer(0.3, grader._worker.kill)
        killer.start()
        assert grader.grade("9^{9^{9^9}}", "3") is False
        killer.join()
        assert grader.timeouts == 1
        assert grader.grade("3/4", "0.75") is True


def test_a_comparison_is_not_made_twice_unless_it_took_too_long() -> None:
    with Grader(seconds=1.0) as grader:
        assert grader.grade("1/2", "0.5") is True
        grader.close()
        assert grader.grade("1/2", "0.5") is True
        assert grader._worker is None
        for attempt in (1, 2):
            assert grader.grade("9^{9^{9^9}}", "3") is False
            assert grader.timeouts == attempt


def test_threads_that_share_a_grader_get_the_answers_to_their_own_questions() -> None:
    def ask(n: int) -> bool:
        return grader.grade(f"x + {n}", f"{n} + x" if n % 3 else "y")

    with Grader(seconds=60.0) as grader, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(60))) == [n % 3 > 0 for n in range(60)]


def test_a_question_that_is_interrupted_takes_its_answer_along(fake_math_verify: Path) -> None:
    fake_math_verify.write_text(STRINGS.replace("return ref", "time.sleep(2 * ('slow' in reference[0])); return ref"))
    with Grader(seconds=60.0) as grader:
        assert grader.grade("X", "x") is True
        with pytest.raises(KeyboardInterrupt), interrupted_soon():
            grader.grade("Slow", "slow")
        assert grader.grade("x", "y") is False
        assert grader.grade("X", "x") is True


def test_a_start_that_is_interrupted_is_begun_anew(fake_math_verify: Path) -> None:
    fake_math_verify.write_text("import time\ntime.sleep(1)\n" + STRINGS)
    with Grader() as grader:
        with pytest.raises(KeyboardInterrupt), interrupted_soon():
            grader.grade("X", "x")
        assert grader.grade("X", "x") is True


@contextlib.contextmanager
def interrupted_soon() -> Iterator[None]:
    interrupter = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    interrupter.start()
    try:
        yield
    finally:
        interrupter.join()


STRINGS = """
import sys, time
def parse(text, parsing_timeout):
    return [text.replace("sqrt{8}", "2sqrt{2}").replace("\\\\", "").lower()]
def verify(reference, answer, rounding, allow_set_relation_comp, timeout_seconds):
    return reference == answer
"""


@pytest.fixture
def fake_math_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that workers import instead of math-verify."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "math_verify.py"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (STRINGS.replace("sqrt{8}", "sqrt{9}"), "math-verify cannot read LaTeX: pip install --force-reinstall"),
        ("raise ImportError('no parser')", "ImportError: no parser"),
        ("", "ImportError: cannot import name 'parse'"),
    ],
)
def test_an_installation_that_cannot_grade_is_an_error(fake_math_verify: Path, module: str, reason: str) -> None:
    fake_math_verify.write_text(module)
    with Grader() as grader, pytest.raises(RetoolError, match=f"the grading worker did not start: {reason}"):
        grader.grade("1/2", "0.5")


def test_a_library_may_write_as_many_warnings_as_it_likes(fake_math_verify: Path) -> None:
    fake_math_verify.write_text(STRINGS.replace("return ref", "print('!' * 10_000, file=sys.stderr); return ref"))
    with Grader() as grader:
        assert all(grader.grade(f"X + {n}", f"x + {n}") for n in range(20))
        assert grader.timeouts == 0


def test_a_machine_that_is_too_busy_is_named(fake_math_verify: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_math_verify.write_text("import sys, time\nprint('a warning', file=sys.stderr)\ntime.sleep(60)")
    monkeypatch.setattr("retool.grading.grade._START_SECONDS", 0.5)
    with Grader() as grader:
        with pytest.raises(RetoolError, match="not ready after 0 s: this machine has too much to do"):
            grader.grade("1/2", "0.5")
        assert grader._worker is None


def test_a_worker_ends_with_its_grader() -> None:
    with Grader() as grader:
        grader.grade("1 + x", "x + 1")
        worker = grader._worker
    assert worker.poll() is not None
    assert grader.grade("1/2", "0.5") is True  # and a closed one may be asked again
    grader.close()
