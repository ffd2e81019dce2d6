"""Responses with behaviour planted in them, as the protocol `tags` writes them, with one id per character."""

from __future__ import annotations

from typing import Any

from retool.types import Author, CallStatus, Problem, Span, ToolCall, Trajectory

OK, ERROR, MALFORMED = CallStatus.OK, CallStatus.ERROR, CallStatus.MALFORMED
NAME_ERROR = "Traceback (most recent call last):\n  File \"main.py\", line 1\nNameError: name 'greedy' is not defined"


def ran(code: str, output: str = "1") -> tuple[str, str, CallStatus]:
    return code, output, OK


def failed(code: str, output: str = NAME_ERROR, status: CallStatus = ERROR) -> tuple[str, str, CallStatus]:
    return code, output, status


def respond(
    *parts: str | tuple[str, str, CallStatus],
    problem: str = "p",
    text: str | None = None,
    ids: bool = True,
    **settings: Any,
) -> Trajectory:
    """What the model says (texts) and runs (calls), in this order."""
    spans, calls, written, before = [], [], "", 0
    for part in parts:
        if isinstance(part, str):
            written += part
            continue
        code, output, status = part
        written += "\n" * bool(written and not written.endswith("\n"))
        calls.append(ToolCall(len(spans), before + len(written), code, output, status))
        written += f"<code>\n```python\n{code}\n```\n</code>"
        spans.append(_span(Author.MODEL, written, ids))
        spans.append(_span(Author.INTERPRETER, f"\n<interpreter>\n{output}\n</interpreter>\n", ids))
        before += len(spans[-2].text) + len(spans[-1].text)
        written = ""
    spans.append(_span(Author.MODEL, written, ids))
    settings = {"step": 0, "arm": "retool", "sample": 0, "correct": True} | settings
    return Trajectory(
        id=f"{settings['arm']}/{settings['step']}/{problem}/{settings['sample']}",
        seed=0,
        group=f"{settings['arm']}/{settings['step']}/{problem}",
        model="m",
        protocol="tags",
        problem=Problem(problem, text or f"What is {problem}?", "1", "sums"),
        prompt_ids=[],
        spans=spans,
        calls=calls,
        **settings,
    )


def _span(author: Author, text: str, ids: bool) -> Span:
    return Span(author, [ord(character) for character in text] if ids else None, text)
