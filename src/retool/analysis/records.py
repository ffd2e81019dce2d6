"""What analysis keeps of a trajectory: a few numbers about the response, each call, each self-correction and revision.

These are the rows of the tables. Everything else is computed from them, so that of ten thousand trajectories only one
has to be in memory.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from retool.analysis.corrections import SelfCorrection, self_corrections
from retool.analysis.failures import FAILED, error_type, last_line
from retool.analysis.purpose import Purpose, purposes
from retool.analysis.revisions import ResultRevision, revisions
from retool.analysis.syntax import same_program
from retool.types import Author, CallStatus, StopReason, ToolCall, Trajectory

_EXCERPT = 400  # characters that are kept of a diagnosis, a result, a reason


@dataclass(frozen=True, slots=True)
class Response:
    """A trajectory. `question` stands for the text of the problem: the same one in any file, whatever `problem`, its id
    there. `executed` are the calls that ran, `failed` those whose code is to blame; token counts are None
    where a text has no ids. `first_call_at` is the place of the first call's first token among those of the response,
    0-1 (in characters where there are no ids)."""

    arm: str
    step: int
    id: str
    problem: str
    question: str
    source: str
    sample: int
    correct: bool
    stop: str
    reward: float | None
    model_tokens: int | None
    interpreter_tokens: int | None
    call_tokens: int | None
    calls: int
    executed: int
    ok: int
    failed: int
    malformed: int
    lines: int
    last_call_ok: bool | None
    first_call_at: float | None
    corrections: int
    diagnosed: int
    tool_seconds: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a response. `tokens` are those that the model wrote for it, `result_tokens` those that it read (calls
    of one turn share them evenly); `repeats`: an earlier call of the response was the same program; `corrects` is the
    index of the failed call that it corrects; `correct` is the response's."""

    arm: str
    step: int
    response: str
    problem: str
    index: int
    purpose: Purpose
    status: CallStatus
    error_type: str | None
    lines: int
    tokens: int | None
    result_tokens: float | None
    at: float
    repeats: bool
    corrects: int | None
    correct: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """A self-correction with what a reader wants to see of it; `diff` leads from the failed code to the one that ran,
    `correct` is the response's."""

    arm: str
    step: int
    response: str
    problem: str
    failed: int
    fixed: int
    attempts: int
    error_type: str
    error: str
    diagnosed: bool
    diagnosis: str
    diff: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Revision:
    """Code that was changed because the model did not believe its result (`retool.analysis.revisions`)."""

    arm: str
    step: int
    response: str
    problem: str
    rejected: int
    revised: int
    result: str
    reason: str
    diff: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """One trajectory, as the tables have it."""

    response: Response
    calls: list[Call]
    corrections: list[Correction]
    revisions: list[Revision]


def observe(trajectory: Trajectory, arm: str | None = None) -> Observation:
    """What is kept of `trajectory`; `arm` in place of its own."""
    found = self_corrections(trajectory)
    response = summarize_response(trajectory, found, arm)
    names = {"arm": response.arm, "step": response.step, "response": response.id, "problem": response.problem}
    return Observation(
        response,
        [Call(**names, **row, correct=response.correct) for row in _calls(trajectory, found)],
        [Correction(**names, **_correction(trajectory, each), correct=response.correct) for each in found],
        [Revision(**names, **_revision(trajectory, each), correct=response.correct) for each in revisions(trajectory)],
    )


def summarize_response(trajectory: Trajectory, found: Sequence[SelfCorrection], arm: str | None = None) -> Response:
    """The row of a trajectory whose self-corrections are `found`."""
    executed, counted, starts = trajectory.executed, has_ids(trajectory), [call.start for call in trajectory.calls]
    return Response(
        arm=arm or trajectory.arm,
        step=trajectory.step,
        id=trajectory.id,
        problem=trajectory.problem.id,
        question=_fingerprint(trajectory.problem.text),
        source=trajectory.problem.source,
        sample=trajectory.sample,
        correct=trajectory.correct,
        stop=trajectory.stop.value,
        reward=trajectory.reward.get("total"),
        model_tokens=trajectory.tokens(Author.MODEL) if counted else None,
        interpreter_tokens=trajectory.tokens(Author.INTERPRETER) if counted else None,
        call_tokens=sum(_lengths(trajectory)) if counted else None,
        calls=len(trajectory.calls),
        executed=len(executed),
        ok=sum(call.status is CallStatus.OK for call in executed),
        failed=sum(call.status in FAILED for call in executed),
        malformed=len(trajectory.calls) - len(executed),
        lines=sum(code_lines(call.code) for call in trajectory.calls),
        last_call_ok=last_call_ok(trajectory) if executed else None,
        first_call_at=min(1.0, starts[0] / max(1, _length(trajectory))) if starts else None,
        corrections=len(found),
        diagnosed=sum(each.diagnosed for each in found),
        tool_seconds=trajectory.timing.get("tool_seconds"),
    )


def code_lines(code: str) -> int:
    """Number of lines that are neither blank nor only a comment."""
    lines = (line.strip() for line in code.split("\n"))
    return sum(1 for line in lines if line and not line.startswith("#"))


def last_call_ok(trajectory: Trajectory) -> bool:
    """Of a trajectory with a call."""
    return trajectory.calls[-1].status is CallStatus.OK


def has_ids(trajectory: Trajectory) -> bool:
    return all(span.ids is not None for span in trajectory.spans)


def is_truncated(response: Response) -> bool:
    return response.stop not in (StopReason.EOS, StopReason.SANDBOX)


def _fingerprint(text: str) -> str:
    """Texts that differ in white space only have the same one."""
    words = " ".join(text.split()).encode(errors="backslashreplace")
    return hashlib.blake2b(words, digest_size=8).hexdigest()


def _calls(trajectory: Trajectory, found: Sequence[SelfCorrection]) -> list[dict[str, object]]:
    calls, length = trajectory.calls, max(1, _length(trajectory))
    counted = has_ids(trajectory)
    tokens = _lengths(trajectory) if counted else [None] * len(calls)
    corrects = {each.fixed: each.failed for each in found}
    return [
        {
            "index": index,
            "purpose": purpose,
            "status": call.status,
            "error_type": error_type(call),
            "lines": code_lines(call.code),
            "tokens": tokens[index],
            "result_tokens": _result_tokens(trajectory, call) if counted else None,
            "at": min(1.0, call.start / length),
            "repeats": any(same_program(earlier.code, call.code) for earlier in calls[:index]),
            "corrects": corrects.get(index),
        }
        for index, (call, purpose) in enumerate(zip(calls, purposes(trajectory), strict=True))
    ]


def _correction(trajectory: Trajectory, found: SelfCorrection) -> dict[str, object]:
    failed, fixed = trajectory.calls[found.failed], trajectory.calls[found.fixed]
    return {
        "failed": found.failed,
        "fixed": found.fixed,
        "attempts": found.attempts,
        "error_type": error_type(failed),
        "error": found.error,
        "diagnosed": found.diagnosed,
        "diagnosis": found.diagnosis[:_EXCERPT],
        "diff": _diff(failed, fixed),
    }


def _revision(trajectory: Trajectory, found: ResultRevision) -> dict[str, object]:
    rejected, revised = trajectory.calls[found.rejected], trajectory.calls[found.revised]
    return {
        "rejected": found.rejected,
        "revised": found.revised,
        "result": last_line(rejected.output)[:_EXCERPT],
        "reason": found.reason[:_EXCERPT],
        "diff": _diff(rejected, revised),
    }


def _diff(before: ToolCall, after: ToolCall) -> str:
    lines = before.code.splitlines(), after.code.splitlines()
    return "\n".join(difflib.unified_diff(*lines, "before", "after", lineterm="", n=1))


def _length(trajectory: Trajectory) -> int:
    """Of the response, in what `ToolCall.start` counts: tokens, or characters where there are no ids."""
    return sum(len(span.text if span.ids is None else span.ids) for span in trajectory.spans)


def _lengths(trajectory: Trajectory) -> list[int]:
    """Tokens of each call: from its first one to the next call of the span, or to the span's end."""
    ends, end = [], 0
    for span in trajectory.spans:
        end += len(span.ids or ())
        ends.append(end)
    following = [*trajectory.calls[1:], None]
    return [
        (after.start if after and after.span == call.span else ends[call.span]) - call.start
        for call, after in zip(trajectory.calls, following, strict=False)
    ]


def _result_tokens(trajectory: Trajectory, call: ToolCall) -> float:
    """Tokens of the span that answers the call, shared evenly with the other calls of its turn."""
    answer = trajectory.spans[call.span + 1 : call.span + 2]
    if not answer or answer[0].author is Author.MODEL:
        return 0.0
    return len(answer[0].ids or ()) / sum(other.span == call.span for other in trajectory.calls)
