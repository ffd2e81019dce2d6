"""Another system's texts as trajectories: who wrote what, what was called, what was cut short."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.data.outputs import read_outputs
from retool.data.transcripts import read_transcript
from retool.errors import UsageError
from retool.types import Author, CallStatus, StopReason

M, I = Author.MODEL, Author.INTERPRETER  # noqa: E741

TAGS = "Let me see.\n<code>\n```python\nprint(6 * 7)\n```\n</code>\n<interpreter>\n42\n</interpreter>\nSo \\boxed{42}."
FENCED = "Let me see.\n```python\nprint(6 * 7)\n```\n```output\n42\n```\nSo \\boxed{42}."
CALL = '<tool_call>\n{"name": "python", "arguments": {"code": "print(6 * 7)"}}\n</tool_call>'
NATIVE = f"Let me see.\n{CALL}<|im_end|>\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n"
NATIVE += "<|im_start|>assistant\nSo \\boxed{42}.<|im_end|>"
NATIVE_WITHOUT_SPECIAL_TOKENS = f"{CALL}\nuser\n<tool_response>\n42\n</tool_response>\nassistant\nSo \\boxed{{42}}."


@pytest.mark.parametrize(
    ("text", "convention"),
    [(TAGS, "tags"), (FENCED, "fenced"), (NATIVE, "native"), (NATIVE_WITHOUT_SPECIAL_TOKENS, "native")],
)
def test_a_call_and_its_result_are_found_in_every_convention(text: str, convention: str) -> None:
    found = read_transcript(text)
    assert (found.convention, found.cut) == (convention, False)
    assert [span.author for span in found.spans] == [M, I, M]
    assert found.spans[-1].text.strip().startswith("So \\boxed{42}.")
    (call,) = found.calls
    assert (call.code, call.output, call.status, call.span) == ("print(6 * 7)", "42", CallStatus.OK, 0)
    assert text[call.start :].startswith(("<code>", "```python", "<tool_call>"))


@pytest.mark.parametrize(
    ("text", "written_by_the_model"),
    [
        ("<interpreter>\\boxed{1}</interpreter>", [""]),
        ("<code>x</code><interpreter>\\boxed{1}\n```python\n</interpreter>end", ["<code>x</code>", "end"]),
        ("```output\n\\boxed{1}\n```\nend", ["", "\nend"]),
        ("<code>x</code>\n<interpreter>\n\\boxed{1} and cut short", ["<code>x</code>"]),
        ("<code>x\n<interpreter>1</interpreter>end", ["<code>x\n", "end"]),  # the stop string was left out
        (f"{CALL}<tool_response>1</tool_response>\n<tool_response>2</tool_response>end", [CALL, "end"]),
    ],
)
def test_nothing_that_an_interpreter_printed_is_the_models(text: str, written_by_the_model: list[str]) -> None:
    assert [span.text for span in read_transcript(text).spans if span.author is M] == written_by_the_model


def test_code_that_nothing_answers_was_not_executed() -> None:
    found = read_transcript("<code>a</code> and <code>b</code><interpreter>3</interpreter> then <code>c</code>")
    assert [(c.code, c.output, c.status) for c in found.calls] == [
        ("a", "", CallStatus.MALFORMED),
        ("b", "3", CallStatus.OK),
        ("c", "", CallStatus.MALFORMED),
    ]
    assert [span.author for span in found.spans] == [M, I, M, I, M]
    assert found.spans[1].text == ""


def test_calls_of_one_turn_are_answered_in_order() -> None:
    second = CALL.replace("6 * 7", "6 + 7")
    found = read_transcript(f"{CALL}\n{second}\n<tool_response>42</tool_response>\n<tool_response>13</tool_response>")
    assert [(c.span, c.output) for c in found.calls] == [(0, "42"), (0, "13")]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ('{"name": "f", "arguments": {"code": "print(1)"}}', "print(1)"),
        ('{"name": "f", "arguments": "{\\"code\\": \\"print(1)\\"}"}', "print(1)"),
        ('{"name": "f", "arguments": {"script": "print(1)", "seconds": 3}}', "print(1)"),
        ('{"name": "f", "arguments": {"code": "a\nb"}}', "a\nb"),
        ('{"name": "f", "arguments": {"code": 3}}', ""),
        ('{"name": "f", "arguments": []}', ""),
        ('{"name": "f"}', ""),
        ("[" * 10_000, ""),
        ("print(1)", ""),
    ],
)
def test_the_code_of_a_tool_call_is_in_its_json(arguments: str, code: str) -> None:
    (call,) = read_transcript(f"<tool_call>{arguments}</tool_call>\n<tool_response>1</tool_response>").calls
    assert call.code == code
    assert call.status is (CallStatus.OK if code else CallStatus.MALFORMED)


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("42", CallStatus.OK),
        ("", CallStatus.OK),
        ("Error: 0.003", CallStatus.OK),  # of a measurement
        ('Traceback (most recent call last):\n  File "x", line 1\nNameError: name', CallStatus.ERROR),
        ("numpy.linalg.LinAlgError: Singular matrix\n", CallStatus.ERROR),
        ("KeyboardInterrupt", CallStatus.ERROR),
        ("Execution timed out after 5 s", CallStatus.TIME_LIMIT),
        ("TimeoutError", CallStatus.TIME_LIMIT),
    ],
)
def test_how_a_run_ended_is_read_from_its_last_line(output: str, status: CallStatus) -> None:
    found = read_transcript(f"<code>x</code>\n<interpreter>\n{output}\n</interpreter>")
    assert found.calls[0].status is status


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("so \\boxed{\\frac{1}{2}", True),
        ("\\boxed{1}, no, \\boxed{2", True),
        ("\\boxed{1}", False),
        ("\\boxed{1}, no, \\fbox{2", True),
        ("\\boxed{\\{1\\}}", False),
        ("<code>print(", True),
        ("<code>x</code><interpreter>4", True),
        ("I could use <code> here, but\n```python\n1\n```\n```output\n1\n```\n\\boxed{1}", False),
        ("it just ends", False),
    ],
)
def test_what_ends_in_the_middle_of_something_was_cut_short(text: str, cut: bool) -> None:
    assert read_transcript(text).cut is cut


pieces = st.sampled_from(
    [
        *("<code>", "</code>", "<interpreter>", "</interpreter>", "\n```python\n", "\n```output\n", "\n```\n"),
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", '{"arguments": {"code": "1"}}'),
        *("<|im_end|>", "\nassistant\n", "\\boxed{1}", "\n", " ", "x"),
    ]
)


@given(st.lists(pieces, max_size=14).map("".join))
def test_spans_alternate_and_add_up_to_the_text_and_calls_begin_in_them(text: str) -> None:
    found = read_transcript(text)
    assert "".join(span.text for span in found.spans) == text
    authors = [span.author for span in found.spans]
    assert all(one is not other for one, other in pairwise(authors)) and authors[0] is M
    begins = [sum(len(span.text) for span in found.spans[:index]) for index in range(len(authors))]
    for call in found.calls:
        assert authors[call.span] is M
        assert begins[call.span] <= call.start < begins[call.span] + len(found.spans[call.span].text)


def rows_file(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_holds_one_sample_or_several_and_rows_of_one_problem_go_together(tmp_path: Path) -> None:
    rows = [
        {"problem": "1 + 1?", "answer": 2, "output": ["\\boxed{2}", TAGS]},
        {"problem": "1 + 1?", "answer": "2", "output": "\\boxed{3}", "model": "m"},
        {"problem": "1 + 2?", "answer": 3.5, "output": "", "id": 7, "source": "sums", "finish_reason": "length"},
    ]
    found = read_outputs(rows_file(tmp_path, *rows))
    assert [t.sample for t in found] == [0, 1, 2, 0]
    assert len({t.id for t in found}) == 4 and len({t.group for t in found}) == 2
    assert [(t.problem.answer, t.problem.source, t.model) for t in found[1:]] == [
        ("2", "theirs", "theirs"),
        ("2", "theirs", "m"),
        ("3.5", "sums", "theirs"),
    ]
    assert found[3].problem.id == "7" and found[3].stop is StopReason.TOKENS
    assert [t.protocol for t in found] == ["text", "tags", "text", "text"]
    assert not any(t.token_exact or t.prompt_ids or t.response_ids for t in found)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": 2, "output": ""}, r"theirs.jsonl:1 has no text as its problem, found None"),
        ({"problem": "?", "answer": True, "output": ""}, r":1 has no text and no number as its answer, found True"),
        (
            {"problem": "?", "answer": float("nan"), "output": ""},
            r":1 has no text and no number as its answer, found nan",
        ),
        ({"problem": "?", "answer": None, "output": ""}, r":1 has no text and no number as its answer, found None"),
        ({"problem": "?", "answer": 2}, r":1 has no text and no list of texts as its output, found None"),
        ({"problem": "?", "answer": 2, "output": [1]}, r":1 has no text and no list of texts as its output"),
        ({"problem": "?", "answer": 2, "output": ["", ""], "finish_reason": ["stop"]}, r"2 outputs and 1 finish"),
        ({"problem": "?", "answer": 2, "output": []}, r"holds no responses"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_outputs(rows_file(tmp_path, row))


def test_one_id_is_one_problem_with_one_answer(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1?", "answer": 2, "output": ""}, {"problem": "1 + 1?", "answer": 3, "output": ""}]
    with pytest.raises(UsageError, match=r":2 has the id of another problem, or another answer to the same one"):
        read_outputs(rows_file(tmp_path, *rows))
