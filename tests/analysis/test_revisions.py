"""Results that the model itself does not believe, so that it changes the code."""

from __future__ import annotations

import pytest

from planted import failed, ran, respond
from retool.analysis import ResultRevision, revisions, self_corrections

FIRST = "def multiples(n):\n    return [k for k in range(1, n) if k % 3 == 0]\nprint(len(multiples(30)))"
SECOND = FIRST.replace("range(1, n)", "range(1, n + 1)")
DOUBT = "Wait, 9 is wrong: 30 counts, too."


@pytest.mark.parametrize(
    "words",
    [
        DOUBT,
        "Hmm, that can't be right.",
        "I forgot to include n itself.",
        "That is too small.",
        "This does not match what I counted by hand.",
        "That isn't correct.",
        "The end is off by one.",
    ],
)
def test_a_result_is_rejected_and_changed_code_runs(words: str) -> None:
    trajectory = respond("So:", ran(FIRST, "9"), words, ran(SECOND, "10"))
    assert revisions(trajectory) == [ResultRevision(0, 1, words)]
    assert self_corrections(trajectory) == []  # nothing failed


@pytest.mark.parametrize(
    "parts",
    [
        [ran(FIRST, "9"), "Good. With the end included:", ran(SECOND, "10")],  # no doubt
        [ran(FIRST, "9"), "It cannot be hard to include the end, which is not what they ask:", ran(SECOND, "10")],
        [ran(FIRST, "9"), DOUBT, ran(f"# again\n{FIRST}", "9")],  # the same program
        [ran(FIRST, "9"), DOUBT, ran("print(2 + 2)", "4")],  # other code
        [ran(FIRST, "9"), DOUBT, failed(SECOND)],  # which does not run
        [failed(FIRST), DOUBT, ran(SECOND, "10")],  # an error: a self-correction
        [ran(FIRST, "9"), DOUBT],
        ["No code."],
    ],
)
def test_what_is_none(parts) -> None:
    assert revisions(respond(*parts)) == []
