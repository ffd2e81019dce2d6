"""What a model wrote around its calls: its reasoning without the code, cut where the calls are."""

from __future__ import annotations

import re
from collections import defaultdict

from retool.errors import UsageError
from retool.types import Author, Span, ToolCall, Trajectory

_OPENED = re.compile(r"(?:<code>|```\w*|\"code\"\s*:\s*\")\s*\Z")
_OPENING = re.compile(r"<code>|<tool_call>|```")
_CLOSED = re.compile(r"[\s\"}]*(?:```)?\s*(?:</code>|</tool_call>)?")
_CLOSING = re.compile(r"</code>|</tool_call>|```\s*\Z")
_LONGEST_OPENING = 80  # characters between an opening and the code
_CONTROL = re.compile(r"<\|\w+\|>|<eos>|</s>")


def prose(trajectory: Trajectory) -> list[str]:
    """One piece more than there are calls: the model's words before the first call, between two calls, after the last.

    The ways to write a call that are known are those of the protocols: tags, fences, Hermes JSON. Raises UsageError if
    a call names a span that is not the model's.
    """
    calls: dict[int, list[ToolCall]] = defaultdict(list)
    for call in trajectory.calls:
        if not (0 <= call.span < len(trajectory.spans)) or trajectory.spans[call.span].author is not Author.MODEL:
            raise UsageError(
                f"a call of the trajectory {trajectory.id!r} says that span {call.span} wrote it, which is no span of "
                "the model's; expected the index of one in `spans`, counted from 0"
            )
        calls[call.span].append(call)
    pieces, offset = [""], 0
    for index, span in enumerate(trajectory.spans):
        if span.author is Author.MODEL:
            position = 0
            for call in calls[index]:
                begin, end = _extent(span, call, position, offset)
                pieces[-1] += span.text[position:begin]
                pieces.append("")
                position = end
            pieces[-1] += span.text[position:]
        offset += len(span.text)
    return [_CONTROL.sub("", piece).strip() for piece in pieces]


def _extent(span: Span, call: ToolCall, position: int, offset: int) -> tuple[int, int]:
    """Where, from `position` on, the call stands in the text of its span, which itself begins at `offset`."""
    text, code = span.text, call.code
    begin = min(max(position, call.start - offset), len(text)) if span.ids is None else position
    at = text.find(code, begin) if code else -1
    while at >= 0 and not _OPENED.search(text, max(begin, at - _LONGEST_OPENING), at):
        at = text.find(code, at + 1)  # the words before it may be the same
    if at >= 0:
        if span.ids is not None:
            tag = max(text.rfind(opening, begin, at) for opening in ("<code>", "<tool_call>"))
            begin = tag if tag >= 0 else max(text.rfind("```", begin, at), begin)
        return begin, _CLOSED.match(text, at + len(code)).end()
    opening = _OPENING.search(text, begin)  # nothing to run, or code that JSON has escaped
    if opening is None:
        return (begin, begin) if span.ids is None else (len(text), len(text))
    closing = _CLOSING.search(text, opening.end())
    return opening.start(), closing.end() if closing else len(text)
