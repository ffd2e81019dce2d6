"""Makes a trace of a draft and what its snippets really printed, and checks format and answer (ReTool §2.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from retool.traces.draft import Draft, Execution, Reason, Rejection
from retool.traces.numbers import agrees, plain_number
from retool.traces.rewrite import conclusion
from retool.types import Author, CallStatus, Kind, Segment, Trace

MAX_CHARACTERS = 50_000
"""Longest trace that is accepted: about the 16,384 tokens of the paper's sequences."""

_SANDBOX_FAULTS = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)

# Text that would read as a call, or as the interpreter's answer, in one of the protocols.
_PROTOCOL_MARKUP = re.compile(r"</?(?:code|interpreter|tool_call|tool_response)>|```|<\|")


def complete(draft: Draft, executions: Sequence[Execution]) -> Trace | Rejection:
    """Write the real outputs into `draft`, one result after each snippet.

    `executions` are the runs of `draft.snippets` in order; they may end after the first that is not `ok`, as the trace
    is lost then.
    """
    runs = iter(zip(executions, draft.claims, strict=False))
    segments: list[Segment] = []
    for segment in draft.segments:
        segments.append(segment)
        if segment.kind is not Kind.CODE:
            continue
        execution, claim = next(runs)
        if execution.status in _SANDBOX_FAULTS:
            return Rejection(Reason.SANDBOX_FAILED, f"{execution.status}: {segment.text!r}")
        if execution.status is not CallStatus.OK:
            return Rejection(Reason.CODE_FAILED, f"{segment.text!r} ended with {execution.status}: {execution.output}")
        if not execution.output.strip():
            return Rejection(Reason.EMPTY_OUTPUT, repr(segment.text))
        if not agrees(claim, execution.output):
            return Rejection(Reason.OUTPUT_DIFFERS, f"{segment.text!r} printed {execution.output!r}, not {claim}")
        segments.append(Segment(Kind.RESULT, execution.output, execution.status))
    if draft.box_last_output:
        value = plain_number(executions[-1].output)
        if value is None:
            return Rejection(Reason.NO_ANSWER, f"the last output {executions[-1].output!r} is not a number")
        segments = _append_text(segments, conclusion(value))
    return Trace(draft.problem, tuple(segments))


def verify(trace: Trace, is_correct: Callable[[list[str], str], bool]) -> Trace | Rejection:
    """Check the format of `trace`, then its answer.

    `is_correct(texts, reference)` gets the texts between the results (what a model would have written, one string a
    span) and the reference answer of the problem.
    """
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
    """What the model writes, one string for each stretch between two results."""
    spans = [""]
    for segment in trace.segments:
        if segment.author is Author.MODEL:
            spans[-1] += segment.text
        else:
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
    boxes = [index for index, segment in enumerate(segments) if "\\boxed{" in segment.text]
    if boxes != [len(segments) - 1] or segments[-1].text.count("\\boxed{") != 1:
        return "it has not exactly one box, in its last segment"
    return None


def _append_text(segments: list[Segment], sentence: str) -> list[Segment]:
    """A new line with `sentence`, in the last segment if that is text."""
    last = segments[-1]
    if last.kind is not Kind.TEXT:
        return [*segments, Segment(Kind.TEXT, sentence)]
    return [*segments[:-1], Segment(Kind.TEXT, f"{last.text}\n{sentence}")]
