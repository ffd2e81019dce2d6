"""Makes a trace of a draft and what its snippets really printed, and checks format and answer (ReTool §2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from retool.traces.draft import Draft, Execution, Rejection
from retool.traces.numbers import agrees
from retool.traces.reasons import Reason
from retool.traces.reliance import relied_on
from retool.types import Author, CallStatus, Kind, Segment, Trace

MAX_CHARACTERS = 50_000
"""Longest trace that is accepted: about the 16,384 tokens of the paper's sequences."""

_SANDBOX_FAULTS = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)

# Text that would read as a call, or as the interpreter's answer, in one of the protocols.
_PROTOCOL_MARKUP = re.compile(r"</?(?:code|interpreter|tool_call|tool_response)>|```|<\|")

IsCorrect = Callable[[list[str], str], bool]
"""`is_correct(texts, reference)`: is the answer in the texts, one for each stretch between two results, that one?"""


def complete(draft: Draft, executions: Sequence[Execution]) -> Trace | Rejection:
    """Write the real outputs into `draft`, one result after each snippet.

    `executions` are the runs of `draft.snippets` in order. Where each claim is a value, they may end after the first
    that is not `ok`, as the trace is lost then; among imagined outputs a failure stands if a later snippet succeeds.
    """
    segments: list[Segment] = []
    done = 0
    for index, segment in enumerate(draft.segments):
        segments.append(segment)
        if segment.kind is not Kind.CODE:
            continue
        execution, claim, later = executions[done], draft.claims[done], executions[done + 1 :]
        done += 1
        following = "\n".join(after.text for after in draft.segments[index + 1 :])
        if fault := _fault(draft, segment.text, execution, claim, later, following):
            return fault
        segments.append(Segment(Kind.RESULT, execution.output, execution.status))
    return Trace(draft.problem, tuple(segments))


def _fault(
    draft: Draft, code: str, run: Execution, claim: str | None, later: Sequence[Execution], following: str
) -> Rejection | None:
    """Why a run of `code`, with the runs `later` than it and the text that follows it, loses the trace."""
    if run.status in _SANDBOX_FAULTS:
        return Rejection(Reason.SANDBOX_FAILED, f"{run.status}: {code!r}")
    corrected = draft.imagined and any(other.status is CallStatus.OK for other in later)
    if run.status is not CallStatus.OK and not corrected:
        return Rejection(Reason.CODE_FAILED, f"{code!r} ended with {run.status}: {run.output}")
    if not run.output.strip():
        return Rejection(Reason.EMPTY_OUTPUT, repr(code))
    if claim is None:
        return None
    if not draft.imagined:
        differs = None if agrees(claim, run.output) else claim
    else:
        differs = relied_on(claim, run.output, following)
    if differs is None:
        return None
    return Rejection(Reason.OUTPUT_DIFFERS, f"{code!r} printed {run.output!r}, and the text goes on with {differs}")


def verify(trace: Trace, is_correct: IsCorrect) -> Trace | Rejection:
    """Check the format of `trace`, then its answer, for which the texts between the results count: what a model would
    have written, and not what its code printed."""
    length = sum(len(segment.text) for segment in trace.segments)
    if length > MAX_CHARACTERS:
        return Rejection(Reason.TOO_LONG, f"{length} characters, more than {MAX_CHARACTERS}")
    fault = _format_fault(trace.segments)
    if fault:
        return Rejection(Reason.FORMAT, fault)
    spans = model_spans(trace)
    if not is_correct(spans, trace.problem.answer):
        return Rejection(
            Reason.WRONG_ANSWER, f"reference {trace.problem.answer!r}; the trace ends {spans[-1][-120:]!r}"
        )
    return trace


def model_spans(trace: Trace) -> list[str]:
    """What the model writes in words, one string for each stretch between two results."""
    spans = [""]
    for segment in trace.segments:
        if segment.kind is Kind.TEXT:
            spans[-1] += segment.text
        elif segment.author is Author.INTERPRETER:
            spans.append("")
    return [span for span in spans if span]


def _format_fault(segments: Sequence[Segment]) -> str | None:
    """What is wrong with the form, in words; None if nothing is."""
    if not segments or segments[-1].kind is not Kind.TEXT:
        return "it does not end in text"
    before: Kind | None = None
    for segment in segments:
        if not segment.text.strip():
            return f"an empty segment of kind {segment.kind}"
        if (before is Kind.CODE) != (segment.kind is Kind.RESULT):
            return f"a segment of kind {segment.kind} stands after {before or 'the beginning'}"
        before = segment.kind
        if segment.author is Author.MODEL and (markup := _PROTOCOL_MARKUP.search(segment.text)):
            return f"{markup[0]!r} stands in a segment of kind {segment.kind}"
    if "\\boxed{" not in segments[-1].text:
        return "its last segment has no box"
    return None
