"""Solutions with calls in them, as the paper writes them: `<code>` … `</code>`, `<interpreter>` … `</interpreter>`.

So do the rewriting teacher and the data that the authors have published. Their outputs are imagined, or of another
interpreter: they are claims, until the snippets have been run.
"""

from __future__ import annotations

import re

from retool.traces.draft import Draft, Rejection
from retool.traces.reasons import Reason
from retool.types import Kind, Problem, Segment

_TAG = re.compile(r"</?(?:code|interpreter)>")
_ANSWER_TAG = re.compile(r"</?answer>")
_FENCE = re.compile(r"\s*```(?:python|py)?[ \t]*\n(?P<code>.*?)\n?```\s*", re.DOTALL)
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+|\s+\Z")


def has_tags(solution: str) -> bool:
    return "<code>" in solution


def read_tagged(problem: Problem, solution: str) -> Draft | Rejection:
    """The segments of a solution with calls; `<answer>` tags go, and fences inside `<code>`.

    Every tag must be closed, by itself and before the next one is opened, and an output must follow its snippet. A
    snippet without an output has the claim None.
    """
    segments: list[Segment] = []
    claims: list[str | None] = []
    position, opened = 0, None
    for tag in _TAG.finditer(solution):
        inside, position = solution[position : tag.start()], tag.end()
        if tag[0].startswith("</"):
            if opened is None or tag[0] != opened.replace("<", "</"):
                return Rejection(Reason.FORMAT, f"{tag[0]} after {opened or 'text'}")
            if opened == "<code>":
                segments.append(Segment(Kind.CODE, _code(inside)))
                claims.append(None)
            else:
                claims[-1] = inside.strip("\n")
            opened = None
            continue
        text = _ANSWER_TAG.sub("", inside).strip()
        if opened is not None:
            return Rejection(Reason.FORMAT, f"{tag[0]} inside {opened}")
        if tag[0] == "<interpreter>" and (text or not segments or segments[-1].kind is not Kind.CODE or claims[-1]):
            return Rejection(Reason.FORMAT, "an output without a snippet right before it")
        if text:
            segments.append(Segment(Kind.TEXT, text))
        opened = tag[0]
    if opened is not None:
        return Rejection(Reason.FORMAT, f"{opened} is not closed")
    if text := _ANSWER_TAG.sub("", solution[position:]).strip():
        segments.append(Segment(Kind.TEXT, text))
    return Draft(problem, tuple(segments), tuple(claims), imagined=True)


def _code(inside: str) -> str:
    fenced = _FENCE.fullmatch(inside)
    return _BLANK_LINES.sub("", fenced["code"] if fenced else inside)
