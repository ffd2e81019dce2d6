"""A trajectory cut up for a reader: who wrote what, which part of it is code, which call it belongs to.

What this returns is JSON: the page holds it compressed and makes text of it when it is read (`templates/reader.js`).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from retool.reporting.printable import printable
from retool.types import Author, Span, ToolCall, Trajectory

LEXER = PythonLexer()
CODE_CLASSES = (
    (Comment, "comment"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (String, "string"),
    (Number, "number"),
    (Name.Builtin, "name"),
    (Name.Function, "name"),
)

Passage = dict[str, Any]
"""A stretch of a span without the line ends around it: `text`, or `code` with the index `call` of the call that it is
and its `marks`: [class, length, class, length, ...], lengths in characters as JavaScript counts them."""


def spans_of(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The spans in order: `author`, `tokens` (None without ids), `passages`, and `ended`, the indices of the calls
    whose end the reader is to be told there: at the result, or, where none was spliced in, at the call."""
    of_span: dict[int, list[int]] = {}
    for index, call in enumerate(trajectory.calls):
        of_span.setdefault(call.span, []).append(index)
    views = []
    for i, span in enumerate(trajectory.spans):
        calls = of_span.get(i, [])
        if span.author is Author.INTERPRETER:
            passages, ended = [{"text": printable(span.text).strip("\n")}], of_span.get(i - 1, [])
        else:
            passages = _passages(span, {call: trajectory.calls[call] for call in calls})
            ended = [] if i + 1 < len(trajectory.spans) else calls
        tokens = None if span.ids is None else len(span.ids)
        views.append({"author": span.author, "tokens": tokens, "passages": passages, "ended": ended})
    return views


def _passages(span: Span, calls: dict[int, ToolCall]) -> list[Passage]:
    """A model span with the code of its calls set apart.

    Calls end the span, so their code is looked for from the end. A protocol that escapes code (JSON) does not contain
    it literally: then it follows the text as it was written.
    """
    before, found, missing = printable(span.text).strip("\n"), [], []
    for index, call in reversed(calls.items()):
        code = printable(call.code).strip("\n")
        if not code:
            continue
        passage = {"code": code, "call": index, "marks": list(marks(code))}
        start = before.rfind(code)
        if start < 0:
            missing.append(passage)
        else:
            found += [{"text": before[start + len(code) :].strip("\n")}, passage]
            before = before[:start]
    found.append({"text": before.strip("\n")})
    passages = [p for p in reversed(found) if "code" in p or p["text"]]
    return passages + missing[::-1]


@lru_cache(maxsize=4096)
def marks(code: str) -> tuple[str | int, ...]:
    """The highlighting of `code` as classes and lengths in turn; responses to one problem often hold the same code."""
    runs: list[str | int] = []
    for _, token, text in LEXER.get_tokens_unprocessed(code):  # processed, it would lack line ends and more
        name = _code_class(token)
        length = len(text.encode("utf-16-le")) // 2
        if runs and runs[-2] == name:
            runs[-1] += length
        else:
            runs += [name, length]
    return tuple(runs)


@cache
def _code_class(token: tuple[str, ...]) -> str:
    return next((name for kind, name in CODE_CLASSES if token in kind), "")
