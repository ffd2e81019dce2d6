"""What a trace is like, in numbers."""

from __future__ import annotations

from itertools import pairwise

from retool.types import CallStatus, Kind, Trace


def calls(trace: Trace) -> int:
    return sum(segment.kind is Kind.CODE for segment in trace.segments)


def corrects_itself(trace: Trace) -> bool:
    """Does a call fail and the next one succeed?"""
    statuses = [segment.status for segment in trace.segments if segment.kind is Kind.RESULT]
    return any(first is not CallStatus.OK and second is CallStatus.OK for first, second in pairwise(statuses))
