"""What is kept of a response, its calls and its corrections."""

from __future__ import annotations

import pytest

from planted import ERROR, MALFORMED, NAME_ERROR, OK, failed, ran, respond
from retool.analysis import Purpose, observe
from retool.types import Author, CallStatus, Span, StopReason, ToolCall

PARTS = [
    "Try.",
    failed("print(greedy(1))"),
    "Oops, greedy is not defined.",
    ran("def greedy(n):\n    # all\n    return n\n\nprint(greedy(1))"),
    "Again:",
    ran("def greedy(n):\n    return n\nprint(greedy(1))"),
    "Done.",
]


def test_a_response() -> None:
    trajectory = respond(*PARTS, correct=False, stop=StopReason.TOKENS, reward={"total": -1.0}, sample=3)
    kept = observe(trajectory).response
    assert (kept.arm, kept.step, kept.problem, kept.sample, kept.source) == ("retool", 0, "p", 3, "sums")
    assert (kept.correct, kept.stop, kept.reward) == (False, "tokens", -1.0)
    assert (kept.calls, kept.executed, kept.ok, kept.failed, kept.malformed) == (3, 3, 2, 1, 0)
    assert (kept.lines, kept.last_call_ok, kept.corrections, kept.diagnosed) == (1 + 3 + 3, True, 1, 1)
    assert kept.model_tokens == sum(len(span.text) for span in trajectory.spans if span.author is Author.MODEL)
    assert kept.first_call_at == len("Try.\n") / len(trajectory.response_ids)


def test_calls() -> None:
    trajectory = respond(*PARTS)
    first, second, third = observe(trajectory, "mine").calls
    assert [call.arm for call in (first, second, third)] == ["mine"] * 3
    assert [call.index for call in (first, second, third)] == [0, 1, 2]
    assert (first.status, first.error_type, first.corrects) == (ERROR, "NameError", None)
    assert (second.status, second.error_type, second.corrects) == (OK, None, 0)
    assert (first.repeats, second.repeats, third.repeats) == (False, False, True)
    assert first.purpose is Purpose.CALCULATION
    assert first.tokens == len("<code>\n```python\nprint(greedy(1))\n```\n</code>")
    assert first.result_tokens == len(f"\n<interpreter>\n{NAME_ERROR}\n</interpreter>\n")


def test_a_correction_shows_what_was_changed() -> None:
    (kept,) = observe(respond(*PARTS)).corrections
    assert (kept.failed, kept.fixed, kept.attempts, kept.error_type) == (0, 1, 1, "NameError")
    assert kept.error == "NameError: name 'greedy' is not defined"
    assert kept.diagnosis == "Oops, greedy is not defined."
    assert "+def greedy(n):" in kept.diff and " print(greedy(1))" in kept.diff


def test_calls_of_one_turn_share_what_answers_them() -> None:
    trajectory = respond("Two at once.")
    trajectory.spans = [Span(Author.MODEL, [0] * 20, "two"), Span(Author.INTERPRETER, [1] * 6, "")]
    trajectory.calls = [ToolCall(0, 4, "1 + 1", "2", OK), ToolCall(0, 12, "2 + 2", "4", OK)]
    assert [(call.tokens, call.result_tokens) for call in observe(trajectory).calls] == [(8, 3.0), (8, 3.0)]


def test_texts_without_ids_have_no_tokens_and_their_places_are_those_of_characters() -> None:
    with_ids, without = observe(respond(*PARTS)), observe(respond(*PARTS, ids=False))
    assert without.response.model_tokens is without.response.call_tokens is without.calls[0].tokens is None
    assert without.response.first_call_at == with_ids.response.first_call_at
    assert [call.at for call in without.calls] == [call.at for call in with_ids.calls]


@pytest.mark.parametrize(
    ("output", "status", "kind"),
    [
        ("Traceback …\nZeroDivisionError: division by zero", ERROR, "ZeroDivisionError"),
        ("KeyboardInterrupt", ERROR, "KeyboardInterrupt"),
        ("Traceback …\nsympy.core.sympify.SympifyError: SympifyError: x", ERROR, "SympifyError"),
        ("what is this", ERROR, "error"),
        ("", CallStatus.TIME_LIMIT, "time_limit"),
        ("MemoryError", CallStatus.MEMORY_LIMIT, "memory_limit"),
        ("Error: none", OK, None),
        ("Nothing was executed: no code.", MALFORMED, None),
    ],
)
def test_the_kind_of_an_error(output: str, status: CallStatus, kind: str | None) -> None:
    (call,) = observe(respond(("print(1)", output, status))).calls
    assert call.error_type == kind


def test_the_same_question_is_the_same_whatever_its_id() -> None:
    one, other = respond(problem="a", text="What is\n 1 + 1?"), respond(problem="b", text="What is 1 + 1?")
    assert observe(one).response.question == observe(other).response.question
    assert observe(one).response.question != observe(respond(text="What is 1 + 2?")).response.question
