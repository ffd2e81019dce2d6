"""A trajectory cut up for a reader: who wrote what, which part of it is code, how each call ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

from retool.reporting.printable import printable
from retool.types import Author, CallStatus, Span, ToolCall, Trajectory

LEXER = PythonLexer(stripnl=False, ensurenl=False)
CODE_CLASSES = (
    (Comment, "comment"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (String, "string"),
    (Number, "number"),
    (Name.Builtin, "name"),
    (Name.Function, "name"),
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a span without the line ends around it: plain text, or code as (class, text) pieces that add up to
    it."""

    text: str
    pieces: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SpanView:
    """A span as the page shows it. `status` is that of the call that it answers, or, where no answer was spliced in,
    of the call that it made."""

    author: Author
    tokens: int | None
    passages: tuple[Passage, ...]
    status: CallStatus | None

    @property
    def trained(self) -> bool:
        return self.author is Author.MODEL


def span_views(trajectory: Trajectory) -> list[SpanView]:
    """The spans of `trajectory` in order."""
    call_of = {call.span: call for call in trajectory.calls}
    views = []
    for i, span in enumerate(trajectory.spans):
        if span.author is Author.INTERPRETER:
            passages = [Passage(printable(span.text).strip("\n"))]
            answered = call_of.get(i - 1)
        else:
            passages = list(_passages(span, call_of.get(i)))
            answered = None if i + 1 < len(trajectory.spans) else call_of.get(i)
        tokens = None if span.ids is None else len(span.ids)
        views.append(SpanView(span.author, tokens, tuple(passages), answered.status if answered else None))
    return views


def _passages(span: Span, call: ToolCall | None) -> Iterator[Passage]:
    """A model span with the code of its call set apart.

    The call ends the span, so its code is looked for from the end. A protocol that escapes code (JSON) does not
    contain it literally: then it follows the text as it was written.
    """
    text = printable(span.text).strip("\n")
    code = printable(call.code).strip("\n") if call else ""
    if not code:
        yield Passage(text)
        return
    before, found, after = text.rpartition(code)
    if not found:
        before, after = text, ""
    if before.strip("\n"):
        yield Passage(before.strip("\n"))
    yield Passage(code, tuple(_highlight(code)))
    if after.strip("\n"):
        yield Passage(after.strip("\n"))


def _highlight(code: str) -> Iterator[tuple[str, str]]:
    for token, text in LEXER.get_tokens(code):
        yield _code_class(token), text


def _code_class(token: tuple[str, ...]) -> str:
    return next((name for kind, name in CODE_CLASSES if token in kind), "")
