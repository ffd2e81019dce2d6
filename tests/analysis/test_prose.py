"""The model's words are found around its calls, whatever way these are written in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted import OK, ran, respond
from retool.analysis import prose
from retool.errors import UsageError
from retool.types import Author, CallStatus, Span, ToolCall, Trajectory

WORDS = st.text("abc 12.,=\n", max_size=30).map(str.strip)
CODE = st.text("abc12=+()\n ", min_size=1, max_size=20).filter(lambda code: code.strip() == code)


@given(st.lists(st.tuples(WORDS, CODE), max_size=3), WORDS, st.booleans())
def test_what_was_said_around_the_calls_comes_back(said: list[tuple[str, str]], last: str, ids: bool) -> None:
    parts = [part for words, code in said for part in (words, ran(code))]
    assert prose(respond(*parts, last, ids=ids)) == [*(words for words, _ in said), last]


def turn(text: str, *codes: str, status: CallStatus = OK) -> Trajectory:
    """One turn of the model with these calls in it."""
    trajectory = respond(text)
    trajectory.spans = [Span(Author.MODEL, [0] * 50, text), Span(Author.INTERPRETER, [1] * 9, "")]
    trajectory.calls = [ToolCall(0, 10 * index, code, "", status) for index, code in enumerate(codes)]
    return trajectory


def hermes(code: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'python', 'arguments': {'code': code}})}\n</tool_call>"


def test_two_calls_of_one_turn_in_json_where_code_is_escaped() -> None:
    codes = ['print("a")\nprint(1)', "print(2)"]
    text = f"First this.\n{hermes(codes[0])}\nThen that.\n{hermes(codes[1])}<|im_end|>"
    assert prose(turn(text, *codes)) == ["First this.", "Then that.", ""]


def test_fences() -> None:
    text = "I print(1) below:\n```python\nprint(1)\n```"
    assert prose(turn(text, "print(1)")) == ["I print(1) below:", ""]


def test_code_that_the_words_before_it_mention() -> None:
    assert prose(respond("x = 1 it is, so", ran("x = 1"), "done")) == ["x = 1 it is, so", "done"]


def test_a_call_with_nothing_to_run() -> None:
    text = "Well.\n<tool_call>\n{oops}\n</tool_call>"
    assert prose(turn(text, "", status=CallStatus.MALFORMED)) == ["Well.", ""]


def test_calls_that_are_not_in_the_text_follow_it() -> None:
    assert prose(turn("Let me see.", "print(1)")) == ["Let me see.", ""]


def test_a_call_of_nobody_is_refused() -> None:
    trajectory = respond(ran("print(1)"))
    trajectory.calls[0].span = 1
    with pytest.raises(UsageError, match="span 1 wrote it, which is no span of the model's"):
        prose(trajectory)
