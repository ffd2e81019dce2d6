"""Finding the answer in what the model wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_answer(model_texts: Sequence[str]) -> str | None:
    """The content of the last complete `\\boxed{…}` inside one model span; None if there is none.

    Braces nest; escaped ones (`\\{`) do not count. A box that is not closed before its span ends, cut short or
    continued after an interpreter's output, is no answer. Only model spans are given in: what code prints never counts.
    """
    for text in reversed(model_texts):
        answers = [answer for match in _BOX.finditer(text) if (answer := _balanced(text, match.end())) is not None]
        if answers:
            return answers[-1]
    return None


def _balanced(text: str, begin: int) -> str | None:
    """The text from `begin` to the brace that closes the one before it."""
    depth = 1
    for match in _BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[begin : match.start()].strip()
    return None
