"""Problems that are in an evaluation set, or share a long run of words with one, are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.data.contamination import EvaluationProblems
from retool.types import Problem

LONG = (
    "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards. When she walks at a "
    "constant speed of $s$ kilometers per hour, the walk takes her 4 hours, including $t$ minutes spent in the shop."
)


def matched(text: str, *held_out: str, ngram: int = 13) -> str | None:
    """What `text` shares with a held-out problem."""
    problems = [Problem(f"h{n}", problem, "1", "test") for n, problem in enumerate(held_out)]
    match = EvaluationProblems(problems, ngram).match(Problem("p", text, "1", "train"))
    return match and match.shared


@pytest.mark.parametrize("text", [LONG, LONG.upper(), LONG.replace("$", ""), "  ".join(LONG.split()), LONG + "?"])
def test_case_spaces_and_signs_of_latex_make_no_difference(text):
    assert matched(text, LONG) is not None


def test_a_run_of_words_in_the_middle_of_another_text_is_found_and_quoted():
    words = " ".join(LONG.split()[10:24])
    shared = matched(f"Someone asks this. {words} And then?", LONG)
    assert shared == "at a coffee shop afterwards when she walks at a constant speed of"


def test_a_shorter_run_is_no_match_unless_asked_for():
    words = " ".join(LONG.split()[:8])  # with the hyphens twelve
    assert matched(f"{words}, then what?", LONG) is None
    assert matched(f"{words}, then what?", LONG, ngram=8)


def test_a_short_problem_is_looked_for_as_a_whole():
    assert matched("Please say: what is the gcd of 12 and 18, in digits?", "What is the gcd of 12 and 18?")
    assert matched("What is the gcd of 12 and 81?", "What is the gcd of 12 and 18?") is None
    assert matched("Find x, please.", "Find x.") is None and matched("find x", "Find x.") == "the whole text"


def test_other_numbers_make_another_problem():
    assert matched("What is $\\frac{1}{2} + \\frac{1}{3}$?", "What is $\\frac{1}{2} + \\frac{1}{4}$?") is None


words = st.sampled_from(["a", "b", "c", "d", "e", "f", "1", "2", "3"])


@given(st.lists(words, min_size=6, max_size=25), st.lists(words, min_size=6, max_size=25), st.integers(6, 9))
def test_a_match_is_a_run_of_both(held_out, text, ngram):
    shared = matched(" ".join(text), " ".join(held_out), ngram=ngram)
    length = min(ngram, len(held_out))
    runs = {tuple(held_out[begin : begin + length]) for begin in range(len(held_out) - length + 1)}
    found = any(tuple(text[begin : begin + length]) in runs for begin in range(len(text) - length + 1))
    assert (shared is not None) == found
