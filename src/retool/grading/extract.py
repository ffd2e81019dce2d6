"""Finding the answer in what the model wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_answer(model_texts: Sequence[str]) -> str | None:
    """The content of the last complete `\\boxed{…}` inside one model span; None if there is none.

    Braces nest; escaped ones (`\\{`) do not count. A box that is not closed before its span ends, cut short or
    continued after an interpreter's output, is no answer. Only model spans are given in: what code prints never counts.
    """
    for text in reversed(model_texts):
        last = max(_complete_boxes(text), default=None)
        if last is not None:
            begin, end = last
            return text[begin:end].strip()
    return None


def _complete_boxes(text: str) -> Iterator[tuple[int, int]]:
    """Where the content of each closed box begins and ends; in one pass, as a model in a loop opens thousands."""
    boxes = {match.end() for match in _BOX.finditer(text)}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            opened.append(match.end())
        elif match.group() == "}" and opened:
            begin = opened.pop()
            if begin in boxes:
                yield begin, match.start()
