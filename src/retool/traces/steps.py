"""Arithmetic steps into code: `48/2 = <<48/2=24>>24 clips` → `48/2 =` [print(48 / 2) → 24.0] `24 clips`.

GSM8K marks its calculations with `<<…>>` for a calculator that a model may call (Cobbe et al. 2021). Some of its
steps, and all of other data sets, have no marks: those are taken where they are written out and right (`equalities`).
A snippet takes the place of the mark, and the value after it stays: the model reads the output and writes it down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retool.traces.calculation import parse_calculation
from retool.traces.draft import Draft, Rejection
from retool.traces.equalities import find_written_out
from retool.traces.notation import NUMBER
from retool.traces.numbers import agrees
from retool.traces.reasons import Reason
from retool.types import Kind, Problem, Segment

_MARK = re.compile(r"<<([^<>]*)>>")
_STRAY_MARK = re.compile(r"<<|>>")
_IDLE_MARK = re.compile(rf"<<\s*-?[$€£]?{NUMBER}\s*=[^<>]*>>")
_CURRENCY_BEFORE = re.compile(r"(?:\\?[$€£])+\s*$")
_VALUE_AFTER = re.compile(r"[$€£]?\s?(-?\d[\d,]*(?:\.\d+)?|-?\.\d+)")


@dataclass(frozen=True, slots=True)
class Step:
    """A value that the text works out: `text[start:end]` is its mark (nothing, if it has none), the value comes next,
    and `code` prints it. `claim` is the value as a number or a fraction."""

    start: int
    end: int
    code: str
    claim: str


def strip_marks(solution: str) -> str:
    """`solution` as people read it: without the marks, with the values after them."""
    return _MARK.sub("", solution)


def strip_idle_marks(solution: str) -> str:
    """`solution` without the marks that have nothing to calculate (`x=<<26=26>>26`)."""
    return _IDLE_MARK.sub("", solution)


def find_steps(solution: str) -> list[Step]:
    """The steps of `solution`, which has no idle marks, in order; none after the beginning of its last box.

    Raises ValueError if a mark is not plain arithmetic.
    """
    steps = []
    for mark in _MARK.finditer(solution):
        calculation = parse_calculation(mark[1])
        steps.append(Step(mark.start(), mark.end(), calculation.code, calculation.claim))
    unmarked = _MARK.sub(lambda mark: "#" * len(mark[0]), solution)  # which ends whatever stands before it
    steps += [Step(found.start, found.start, found.code, found.claim) for found in find_written_out(unmarked)]
    box = solution.rfind("\\boxed")
    return sorted((step for step in steps if box < 0 or step.start <= box), key=lambda step: step.start)


def rewrite_steps(problem: Problem, solution: str) -> Draft | Rejection:
    """Turn every arithmetic step of `solution` into a snippet, after which the text goes on with its value."""
    solution = strip_idle_marks(solution)
    try:
        steps = find_steps(solution)
    except ValueError as error:
        return Rejection(Reason.UNREADABLE_CALCULATION, str(error))
    if not steps:
        return Rejection(Reason.NO_RULE, f"no arithmetic step in {strip_marks(solution)[-120:]!r}")
    segments: list[Segment] = []
    text, position = "", 0
    for step in steps:
        if stated := _contradiction(step, solution):
            return Rejection(Reason.OUTPUT_DIFFERS, f"{solution[step.start : step.end]} is followed by {stated}")
        text += strip_marks(solution[position : step.start])
        position = step.end
        # A currency sign belongs to the value that the model writes after it has read the output.
        currency = _CURRENCY_BEFORE.search(text)
        before, text = (text[: currency.start()], currency[0].strip()) if currency else (text, "")
        if before.strip():
            segments.append(Segment(Kind.TEXT, before.strip()))
        segments.append(Segment(Kind.CODE, step.code))
    text += strip_marks(solution[position:])
    if text.strip():
        segments.append(Segment(Kind.TEXT, text.strip()))
    for segment in segments:
        if segment.kind is Kind.TEXT and _STRAY_MARK.search(segment.text):
            return Rejection(Reason.UNREADABLE_CALCULATION, f"an unclosed mark in {segment.text[-80:]!r}")
    return Draft(problem, tuple(segments), tuple(step.claim for step in steps))


def _contradiction(step: Step, solution: str) -> str | None:
    """The number that the text states right after a mark, if it is another one than the mark's value."""
    value = _VALUE_AFTER.match(solution, step.end) if step.end > step.start else None
    if value is None or agrees(value[1].rstrip(","), step.claim):
        return None
    return value[1]
