"""The boxes in a text: `\\boxed{…}` and `\\fbox{…}`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def boxes_from_the_last(text: str) -> Iterator[str | None]:
    """What is in each box, the last one first; None for one that is never closed. Escaped braces do not count."""
    for box in reversed([*_BOX.finditer(text)]):
        depth, content = 1, None
        for brace in _BRACE.finditer(text, box.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if not depth:
                content = text[box.end() : brace.start()]
                break
        yield content
