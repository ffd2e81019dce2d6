"""Texts that other systems left, cut up by author: what the model wrote, its code, what an interpreter answered.

Known are the paper's tags (`<code>`, `<interpreter>`), fences (```` ```python ````, ```` ```output ````) and Hermes
calls (`<tool_call>` JSON, `<tool_response>`, with or without the chat template's tokens around them), in any mixture. A
block that has begun belongs to its author up to its end, whatever it contains. So what code prints is never taken for
the model's words, as long as it does not print the end of its own block: a text cannot say who wrote that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from retool.data.boxes import boxes_from_the_last
from retool.types import Author, CallStatus, Span, ToolCall

Convention = Literal["tags", "fenced", "native", "text"]

_OPENING = re.compile(
    r"(?P<tags_call><code>)|(?P<tags_result><interpreter>)"
    r"|(?P<native_call><tool_call>)|(?P<native_result><tool_response>)"
    r"|^ {0,3}```(?:(?P<fenced_call>(?i:python|py))|(?P<fenced_result>output))[ \t]*$",
    re.MULTILINE,
)
_CLOSING = {  # serving engines leave out the string that they were told to stop at: then a result ends its call
    "tags_call": re.compile(r"</code>|(?=<interpreter>)"),
    "tags_result": re.compile(r"</interpreter>"),
    "native_call": re.compile(r"</tool_call>|(?=<tool_response>)"),
    "native_result": re.compile(r"</tool_response>"),
    "fenced_call": re.compile(r"^ {0,3}```", re.MULTILINE),
    "fenced_result": re.compile(r"^ {0,3}```", re.MULTILINE),
}
_TURN = re.compile(r"(?:\s|<\|\w+\|>|(?:user|tool|assistant)(?=\n))*")
"""What may stand between a call and its result: nothing, or the end of one turn and the beginning of another."""
_FENCE = re.compile(r"\A\s*```(?:python|py)?[ \t]*\n(.*?)(?:^```\s*)?\Z", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_TIME = re.compile(r"time(?:d )?[ -]?out|time limit", re.IGNORECASE)
_EXCEPTION = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?::|$)")


@dataclass(frozen=True, slots=True)
class Transcript:
    """One response. The texts of `spans` add up to it; `start` of a call counts characters. `cut` says that it ends in
    the middle of a call, of a result or of a box."""

    spans: list[Span]
    calls: list[ToolCall]
    convention: Convention
    cut: bool


def read_transcript(text: str) -> Transcript:
    """Who wrote what in `text`. Code that no result follows was not executed: its status is `malformed`, and an empty
    span stands where its result would be."""
    cutter = _Cutter(text)
    conventions: list[Convention] = []
    closed = True
    for block in _blocks(text):
        (cutter.call if block.is_call else cutter.result)(block)
        if block.is_call:
            conventions.append(block.convention)
        closed = block.closed
    spans, calls = cutter.finish()
    last = next((span.text for span in reversed(spans) if span.author is Author.MODEL), "")
    cut = not closed or next(boxes_from_the_last(last), "") is None
    return Transcript(spans, calls, conventions[0] if conventions else "text", cut)


@dataclass(frozen=True, slots=True)
class _Block:
    """A call or a result: text[start:end], its tags included; `inner` is without. Not `closed`: the text ends first."""

    convention: Convention
    is_call: bool
    start: int
    end: int
    inner: str
    closed: bool


def _blocks(text: str) -> Iterator[_Block]:
    position = 0
    while opening := _OPENING.search(text, position):
        kind = str(opening.lastgroup)
        convention, _, role = kind.partition("_")
        closing = _CLOSING[kind].search(text, opening.end())
        if closing is None and role == "call" and _OPENING.search(text, opening.end()):
            position = opening.end()  # words about a tag
            continue
        inner_end, position = closing.span() if closing else (len(text), len(text))
        start, inner_start = opening.start(), opening.end()
        if kind == "tags_call" and (last := text.rfind("<code>", inner_start, inner_end)) >= 0:
            start, inner_start = last, last + len("<code>")  # the ones before it were words
        yield _Block(convention, role == "call", start, position, text[inner_start:inner_end], closing is not None)


class _Cutter:
    """Takes the blocks of a text in order, and makes spans that alternate between the authors."""

    def __init__(self, text: str):
        self._text = text
        self._spans: list[Span] = []
        self._calls: list[ToolCall] = []
        self._waiting: list[ToolCall] = []  # calls of the turn at hand that have no result yet
        self._begin = 0  # where the span at hand begins
        self._end = 0  # where the last block ended
        self._after_result = False

    def call(self, block: _Block) -> None:
        if self._after_result:
            self._waiting.clear()
        elif self._waiting and not (block.convention == "native" and self._follows(block)):
            self._leave_unanswered()
        code = _code(block)
        self._calls.append(ToolCall(len(self._spans), block.start, code or "", "", CallStatus.MALFORMED))
        self._waiting.append(self._calls[-1])
        self._end, self._after_result = block.end, False

    def result(self, block: _Block) -> None:
        answers = self._follows(block)
        if self._after_result and answers:
            self._spans[-1].text += self._text[self._end : block.end]
        else:
            if self._waiting and not answers:
                self._leave_unanswered()
            border = self._end if self._waiting else block.start
            self._add(Author.MODEL, border)
            self._add(Author.INTERPRETER, block.end)
        if self._waiting:
            call = self._waiting.pop(0)
            call.output = block.inner.strip("\n")
            call.status = _verdict(call.output) if call.code else CallStatus.MALFORMED
        self._end, self._after_result = block.end, True
        if block.convention == "native":  # the header of the model's next turn is not its own
            self._end = _TURN.match(self._text, self._end).end()
            self._spans[-1].text += self._text[block.end : self._end]
        self._begin = self._end

    def finish(self) -> tuple[list[Span], list[ToolCall]]:
        if self._waiting and not self._after_result and self._text[self._end :].strip():
            self._leave_unanswered()
        if self._begin < len(self._text) or not self._spans:
            self._add(Author.MODEL, len(self._text))
        return self._spans, self._calls

    def _follows(self, block: _Block) -> bool:
        """Does nothing but a change of turns stand between the last block and this one?"""
        return self._end > 0 and _TURN.fullmatch(self._text, self._end, block.start) is not None

    def _leave_unanswered(self) -> None:
        self._add(Author.MODEL, self._end)
        self._add(Author.INTERPRETER, self._end)
        self._waiting.clear()

    def _add(self, author: Author, end: int) -> None:
        self._spans.append(Span(author, None, self._text[self._begin : end]))
        self._begin = end


def _code(block: _Block) -> str | None:
    """The code of a call; None if its JSON holds none."""
    if block.convention != "native":
        fence = _FENCE.match(block.inner)
        return (fence[1] if fence else block.inner).strip("\n")
    try:
        arguments = json.JSONDecoder(strict=False).raw_decode(block.inner.lstrip())[0]["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments, strict=False)
        texts = [value for value in arguments.values() if isinstance(value, str)]
        code = arguments.get("code", texts[0] if len(texts) == 1 else None)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return code.strip("\n") if isinstance(code, str) else None


def _verdict(output: str) -> CallStatus:
    """How a run ended, by what is left of it: the last line of a traceback names an exception."""
    last = output.rstrip().rpartition("\n")[2].strip()
    if _TIME.search(last):
        return CallStatus.TIME_LIMIT
    return CallStatus.ERROR if _EXCEPTION.match(last) else CallStatus.OK
