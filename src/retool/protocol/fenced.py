"""Markdown fences, which Qwen2.5-Math and -Coder write by themselves: ```` ```python ```` … ```` ```output ````."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retool.config.schema import ProtocolConfig
from retool.protocol.base import Call, Protocol, strip_blank_lines
from retool.protocol.marker import Marker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CALL = re.compile(r"^```(?:python|py)[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Fenced(Protocol):
    """A line ```` ```python ```` (or ```` ```py ````) begins a call, and the next line that begins with three backticks
    ends it, even inside a string of the code. Fences of other languages, and indented ones, are text."""

    name = "fenced"
    instruction = (
        "Solve the following problem step by step. Where it helps, write a complete Python script into a ```python "
        "block: it is executed for you, and what it prints, or its error, is returned to you in an ```output block; "
        "then go on reasoning. Not every step needs code. Put the final answer into \\boxed{}."
    )
    tags = ("```python", "```py", "```output", "```")

    def __init__(self, config: ProtocolConfig, tokenizer: PreTrainedTokenizerBase):
        super().__init__(config, tokenizer)
        self._fence = Marker("```", self.codec)
        self._opening = Marker("```py", self.codec)
        self._frame = [self.codec.encode(text, allow=self.tags) for text in ("\n```output\n", "\n```\n")]

    def stop(self, ids: Sequence[int]) -> bool:
        if not self._fence.completed(ids):
            return False
        return _CALL.search(self.decode(ids)) is not None and _CALL.search(self.decode(ids[:-1])) is None

    def calls(self, ids: Sequence[int]) -> list[Call]:
        call = _CALL.search(self.decode(ids))
        if call is None:
            return []
        code = strip_blank_lines(call[1])
        error = None if code else "Nothing was executed: there is no code in the ```python block."
        return [Call(code or None, error, self.codec.locate(ids, call.start()))]

    def forbid(self, ids: Sequence[int]) -> np.ndarray:
        return self._opening.completions(ids)

    def write_call(self, code: str) -> str:
        return f"```python\n{code}\n```"

    def frame(self, results: int) -> list[list[int]]:
        before, after = self._frame
        return [before, *[after + before] * (results - 1), after]

    def neutralize(self, result: str) -> str:
        """`result` with a space after every second backtick of a run, so that no three stand together."""
        return re.sub(r"``(?=`)", "`` ", result)
