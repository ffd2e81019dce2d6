"""What passes between the steps of a rewrite: drafts, the runs of their snippets, and reasons to give one up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from retool.types import CallStatus, Kind, Problem, Segment


class Reason(StrEnum):
    """Why a solution did not become a trace. The values are the keys of the report's counts."""

    NO_SOLUTION = "no_solution"
    NO_RULE = "no_rule"
    UNREADABLE_CALCULATION = "unreadable_calculation"
    NO_ANSWER = "no_answer"
    CODE_FAILED = "code_failed"
    EMPTY_OUTPUT = "empty_output"
    OUTPUT_DIFFERS = "output_differs"
    SANDBOX_FAILED = "sandbox_failed"
    FORMAT = "format"
    TOO_LONG = "too_long"
    WRONG_ANSWER = "wrong_answer"

    @property
    def meaning(self) -> str:
        """One line for readers of a report."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NO_SOLUTION: "the row has no worked solution",
    Reason.NO_RULE: "no rule found a calculation to turn into code",
    Reason.UNREADABLE_CALCULATION: "a marked calculation is not plain arithmetic with a number as its value",
    Reason.NO_ANSWER: "the solution states no final value that could be boxed",
    Reason.CODE_FAILED: "a snippet did not run to its end",
    Reason.EMPTY_OUTPUT: "a snippet printed nothing",
    Reason.OUTPUT_DIFFERS: "a snippet printed another value than the one the text goes on with",
    Reason.SANDBOX_FAILED: "the sandbox could not run a snippet, for reasons of its own",
    Reason.FORMAT: "the trace is not well formed",
    Reason.TOO_LONG: "the trace is too long",
    Reason.WRONG_ANSWER: "the boxed answer is not the reference answer",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A solution that was given up, and what was found."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A rewritten solution whose snippets have not been run yet: segments of text and code, no results.

    `claims` has one entry per code segment: the value that the text after it relies on. With `box_last_output`, the
    trace ends in a sentence of its own that boxes what the last snippet prints; without, the text has its own box.
    """

    problem: Problem
    segments: tuple[Segment, ...]
    claims: tuple[str, ...]
    box_last_output: bool

    @property
    def snippets(self) -> list[str]:
        return [segment.text for segment in self.segments if segment.kind is Kind.CODE]


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a snippet: the verdict and what the model gets to read."""

    status: CallStatus
    output: str
