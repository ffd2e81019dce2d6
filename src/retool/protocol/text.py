"""No interpreter: the text-only baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from retool.errors import UsageError
from retool.protocol.base import Call, Protocol, Rendered
from retool.types import Trace


class Text(Protocol):
    """The model reasons in words; nothing in them is a call."""

    name = "text"
    instruction = "Solve the following problem step by step. Put the final answer into \\boxed{}."

    def render(self, trace: Trace) -> Rendered:
        if trace.has_code:
            self._refuse(trace, "it holds code, and there is no interpreter")
        return super().render(trace)

    def stop(self, ids: Sequence[int]) -> bool:
        return False

    def calls(self, ids: Sequence[int]) -> list[Call]:
        return []

    def write_call(self, code: str) -> NoReturn:
        raise UsageError("protocol 'text' has no interpreter to call; take `tags`, `native` or `fenced`")

    def frame(self, results: int) -> NoReturn:
        raise UsageError("protocol 'text' has no interpreter to hear from; take `tags`, `native` or `fenced`")
