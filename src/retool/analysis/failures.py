"""Which calls failed, and at what."""

from __future__ import annotations

import re

from retool.types import CallStatus, ToolCall

FAILED = frozenset(
    {
        CallStatus.ERROR,
        CallStatus.EXIT,
        CallStatus.SIGNAL,
        CallStatus.TIME_LIMIT,
        CallStatus.MEMORY_LIMIT,
        CallStatus.OUTPUT_LIMIT,
    }
)
"""How a call ends whose code is to blame."""

_EXCEPTION = re.compile(r"(?:\w+\.)*(?P<name>[A-Z]\w{3,})\s*(?::|\Z)")


def last_line(output: str) -> str:
    """The last line of an output that is not blank: of a traceback, the error."""
    return output.rstrip().rpartition("\n")[2].strip()


def exception_name(call: ToolCall) -> str | None:
    """The exception that the last line of the output names."""
    named = _EXCEPTION.match(last_line(call.output))
    return named["name"] if named else None


def error_type(call: ToolCall) -> str | None:
    """What failed: the name of the exception, or the verdict where there is none; None if nothing did."""
    if call.status not in FAILED:
        return None
    named = exception_name(call) if call.status is CallStatus.ERROR else None
    return named or call.status.value
