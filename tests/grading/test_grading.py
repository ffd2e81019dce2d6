"""Finding an answer, and comparing it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        (["the answer is 5"], None),
        ([], None),
    ],
)
def test_the_last_complete_box_inside_one_span_is_the_answer(texts: list[str], answer: str | None) -> None:
    assert extract_answer(texts) == answer


@given(st.integers())
def test_integers_are_read_however_they_are_written(n: int) -> None:
    for text in (str(n), f"{n:,}", f" {n}.0", f"${n}$", f"\\${n}", f"{n:,}".replace(",", "{,}")):
        assert exact_integer(text) == n


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
        ("0.333", "1/3", False),
        ("12", "13", False),
        ("(2, 1)", "(1, 2)", False),
        ("", "1", False),
        (None, "1", False),
    ],
)
def test_equal_is_what_is_mathematically_equal(grader: Grader, answer: str | None, reference: str, equal: bool) -> None:
    assert grader.grade(answer, reference) is equal


def test_an_answer_that_takes_forever_is_wrong_and_counted() -> None:
    with Grader(seconds=1.0) as grader:
        assert grader.grade("1/2", "0.5") is True
        began = time.monotonic()
        assert grader.grade("9^{9^{9^9}}", "3") is False
        assert time.monotonic() - began < 10
        assert grader.timeouts == 1
        assert grader.grade("1/2", "0.5") is True


def test_a_worker_that_dies_is_replaced(grader: Grader) -> None:
    grader.grade("x", "x")
    grader._worker.kill()
    grader._worker.wait()
    assert grader.grade("1/2", "0.5") is True
