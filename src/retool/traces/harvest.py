"""What a model did by itself, as traces: successful trajectories with the real outputs that it read."""

from __future__ import annotations

from collections.abc import Sequence

from retool.types import Author, CallStatus, Kind, Segment, Trace, Trajectory


def trace_of(trajectory: Trajectory, words: Sequence[str]) -> Trace | None:
    """The trace of a trajectory; None if a call of it was malformed, or lost by the sandbox.

    `words` are the texts of the model's spans, in order, without the calls in them. Several calls of one turn come one
    after the other, each with its result.
    """
    unusable = (CallStatus.MALFORMED, CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)
    if any(call.status in unusable for call in trajectory.calls):
        return None
    segments: list[Segment] = []
    texts = iter(words)
    for index, span in enumerate(trajectory.spans):
        if span.author is not Author.MODEL:
            continue
        if text := next(texts).strip():
            segments.append(Segment(Kind.TEXT, text))
        for call in trajectory.calls:
            if call.span == index:
                segments.append(Segment(Kind.CODE, call.code))
                segments.append(Segment(Kind.RESULT, call.output or "[no output]", call.status))
    return Trace(trajectory.problem, tuple(segments))
