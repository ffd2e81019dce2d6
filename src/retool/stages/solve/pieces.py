"""A turn of the model while it is being written, cut into reasoning and code, for whoever looks on.

This is for the eye only: what is run is found in ids, by the protocol, when the turn has come to its end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_OPENING = re.compile(r"(?P<tags><code>)|(?P<native><tool_call>)|^(?P<fenced>```(?:python|py)[ \t]*\n)", re.MULTILINE)
_CLOSING = {
    "tags": re.compile(r"</code>"),
    "native": re.compile(r"</tool_call>"),
    "fenced": re.compile(r"^```", re.MULTILINE),
}
_MAY_OPEN = re.compile(
    r"(?:<(?:c(?:o(?:de?)?)?|t(?:o(?:o(?:l(?:_(?:c(?:a(?:ll?)?)?)?)?)?)?)?)?|^`{1,3}\w*[ \t]*)\Z", re.MULTILINE
)
_FENCE = re.compile(r"\s*```(?:python|py)?[ \t]*\n")
_STRING = re.compile(r"\"code\"\s*:\s*\"(?P<code>(?:[^\"\\]|\\.)*)", re.DOTALL)
_HALF_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{0,3})\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """Reasoning or code; `whole` says that nothing can be added to it."""

    is_code: bool
    text: str
    whole: bool


def cut(turn: str, ended: bool) -> list[Piece]:
    """The pieces of what has been written of a turn. Unless it has `ended`, the last words that may be the beginning of
    a call are left out."""
    pieces, position = [], 0
    while opening := _OPENING.search(turn, position):
        kind = str(opening.lastgroup)
        closing = _CLOSING[kind].search(turn, opening.end())
        inner = turn[opening.end() : closing.start() if closing else len(turn)]
        pieces.append(Piece(False, turn[position : opening.start()], True))
        pieces.append(Piece(True, _code(inner, kind), ended or closing is not None))
        if closing is None:
            return pieces
        position = closing.end()
    words = turn[position:]
    return [*pieces, Piece(False, words if ended else words[: len(words) - _possible_opening(words)], ended)]


def _code(inner: str, kind: str) -> str:
    """The code in a call that may not be closed yet."""
    if kind == "native":
        found = _STRING.search(inner)
        return _unescaped(found["code"]) if found else ""
    if kind == "tags" and (fence := _FENCE.match(inner)):
        return inner[fence.end() :].partition("\n```")[0]
    return inner.lstrip("\n")


def _unescaped(string: str) -> str:
    """What a JSON string stands for, as far as it goes; as it is, where it is none."""
    try:
        return json.loads(f'"{_HALF_ESCAPE.sub("", string)}"', strict=False)
    except ValueError:
        return string


def _possible_opening(words: str) -> int:
    """How many of the last characters may be the beginning of an opening."""
    found = _MAY_OPEN.search(words)
    return len(words) - found.start() if found else 0
