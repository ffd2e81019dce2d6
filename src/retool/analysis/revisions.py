"""Revisions: code ran, the model does not believe what came out, changes the code, and it runs.

The rule. The words between two neighbouring calls with status `ok` reject the result (*is wrong*, *can't be*, *too
large*, *doesn't match*, *I forgot* …), and the second is made from the first: similar (`similarity` of at least 0.5)
and not the same program. No error was detected but by the model's own reading, so these are counted apart from
self-corrections.
"""

from __future__ import annotations

from dataclasses import dataclass

from retool.analysis.corrections import SIMILAR
from retool.analysis.diagnosis import rejects_result
from retool.analysis.prose import prose
from retool.analysis.similarity import similarity
from retool.analysis.syntax import same_program
from retool.types import CallStatus, ToolCall, Trajectory


@dataclass(frozen=True, slots=True)
class ResultRevision:
    """`rejected` and `revised` are indices into `Trajectory.calls`, `reason` is the model's text between them."""

    rejected: int
    revised: int
    reason: str


def revisions(trajectory: Trajectory) -> list[ResultRevision]:
    """The revisions of a trajectory, in order (see the top of this file)."""
    calls = trajectory.calls
    if len(calls) < 2:
        return []
    reasons = prose(trajectory)[1:-1]
    return [
        ResultRevision(index, index + 1, reason)
        for index, reason in enumerate(reasons)
        if rejects_result(reason) and _is_revised(calls[index], calls[index + 1])
    ]


def _is_revised(first: ToolCall, second: ToolCall) -> bool:
    ran = first.status is CallStatus.OK and second.status is CallStatus.OK
    alike = ran and similarity(first.code, second.code) >= SIMILAR
    return alike and not same_program(first.code, second.code)
