"""The paper's protocol (arXiv 2504.11536, section 2.3.1): `<code>` … `</code>`, `<interpreter>` … `</interpreter>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retool.config.schema import ProtocolConfig
from retool.protocol.base import Call, Protocol, strip_blank_lines
from retool.protocol.marker import Marker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING, CLOSING = "<code>", "</code>"

_FENCES = ("```python", "```py", "```")


class Tags(Protocol):
    """The first `</code>` completes a call, wherever it stands; the code begins after the last `<code>` before it.

    A `<code>` that is never closed is no call, and an `<interpreter>` that the model writes is text like any other.
    """

    name = "tags"
    instruction = (
        "Solve the following problem step by step. Where it helps, you may write Python code, which is executed for "
        "you: put a complete script with its imports between <code> and </code>, and print what you need to see. Its "
        "output, or its error, is returned to you between <interpreter> and </interpreter>; then go on reasoning. Not "
        "every step needs code. Put the final answer into \\boxed{}."
    )
    tags = (OPENING, CLOSING, "<interpreter>", "</interpreter>")

    def __init__(self, config: ProtocolConfig, tokenizer: PreTrainedTokenizerBase):
        super().__init__(config, tokenizer)
        self._opening = Marker(OPENING, self.codec)
        self._closing = Marker(CLOSING, self.codec)
        self._frame = [self.codec.encode(text, allow=self.tags) for text in ("\n<interpreter>\n", "\n</interpreter>\n")]

    def stop(self, ids: Sequence[int]) -> bool:
        return self._closing.completed(ids)

    def calls(self, ids: Sequence[int]) -> list[Call]:
        text = self.decode(ids)
        close = text.find(CLOSING)
        if close < 0:
            return []
        start = text.rfind(OPENING, 0, close)
        if start < 0:
            error = f"Nothing was executed: {CLOSING} has no {OPENING} before it."
            return [Call(None, error, self.codec.locate(ids, close))]
        code = _code(text[start + len(OPENING) : close])
        error = None if code else f"Nothing was executed: there is no code between {OPENING} and {CLOSING}."
        return [Call(code or None, error, self.codec.locate(ids, start))]

    def forbid(self, ids: Sequence[int]) -> np.ndarray:
        return self._opening.completions(ids)

    def write_call(self, code: str) -> str:
        if self.config.fence:
            code = f"```python\n{code}\n```"
        return f"{OPENING}\n{code}\n{CLOSING}"

    def frame(self, results: int) -> list[list[int]]:
        before, after = self._frame
        return [before, *[after + before] * (results - 1), after]


def _code(inner: str) -> str:
    """What is to be run of what stands between the tags: without a fence around it, closed or not."""
    fence, newline, code = inner.lstrip().partition("\n")
    if not newline or fence.rstrip() not in _FENCES:
        return strip_blank_lines(inner)
    before, _, last = code.rstrip().rpartition("\n")
    return strip_blank_lines(before if last == "```" else code)
