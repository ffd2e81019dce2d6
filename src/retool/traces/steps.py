"""Arithmetic steps into code: `48/2 = <<48/2=24>>24 clips` → `48/2 =` [print(48 / 2) → 24.0] `24 clips`.

GSM8K marks its calculations with `<<…>>` for a calculator that a model may call (Cobbe et al. 2021). Some of its
steps, and all of other data sets, have no marks: those are taken where they are written out in numbers and right.
A snippet takes the place of the mark, and the value after it stays: the model reads the output and writes it down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retool.traces.calculation import Calculation, parse_calculation
from retool.traces.draft import Draft, Reason, Rejection
from retool.traces.numbers import agrees
from retool.types import Kind, Problem, Segment

_MARK = re.compile(r"<<([^<>]*)>>")
_STRAY_MARK = re.compile(r"<<|>>")
_CURRENCY_BEFORE = re.compile(r"[$€£]+\s*$")
_VALUE_AFTER = re.compile(r"[$€£]?\s?(-?\d[\d,]*(?:\.\d+)?|-?\.\d+)")

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_IDLE_MARK = re.compile(rf"<<\s*-?[$€£]?{_NUMBER}\s*=[^<>]*>>")
_TERM = rf"\(*[$€£]?{_NUMBER}%?\)*"
_WRITTEN_OUT = re.compile(
    # Not the tail of a longer expression ("2x + 3 + 4 = 20"), a time of day or a name ("A4 + 2").
    r"(?<![\w.,:%)\]^$€£<=(+*/×÷−–-])(?<![+*/×÷−–=^-] )"
    rf"(?P<expression>{_TERM}(?:\s?[-+*/xX×÷−–]\s?{_TERM})+)"
    rf"\s?=\s?[$€£]?(?P<value>{_NUMBER})"
    # Nor the head of one ("3 + 4 = 7 * 1", "1/5 * 1/2 = 1/10", "= 10%", "= 3 1/2").
    r"(?![\w%^]|[.,:]\d|\s?[-+*/×÷−–(=]\s?[\w$(]|\s\d|\s[xX]\s)"
)


@dataclass(frozen=True, slots=True)
class Step:
    """A calculation in a text: `text[start:end]` is its mark (nothing, if it has none), and its value comes next."""

    start: int
    end: int
    calculation: Calculation


def strip_marks(solution: str) -> str:
    """`solution` as people read it: without the marks, with the values after them."""
    return _MARK.sub("", solution)


def strip_idle_marks(solution: str) -> str:
    """`solution` without the marks that have nothing to calculate (`x=<<26=26>>26`)."""
    return _IDLE_MARK.sub("", solution)


def find_steps(solution: str) -> list[Step]:
    """The arithmetic steps of `solution`, which has no idle marks, in order.

    Raises ValueError if a mark is not plain arithmetic.
    """
    steps = [Step(mark.start(), mark.end(), parse_calculation(mark[1])) for mark in _MARK.finditer(solution)]
    for match in _WRITTEN_OUT.finditer(solution):
        try:
            calculation = parse_calculation(f"{match['expression']}={match['value']}")
        except ValueError:
            continue
        # What seems wrong may be a part of something else: "12 x 1 and 1/4 = 15".
        if calculation.holds:
            steps.append(Step(match.start("value"), match.start("value"), calculation))
    return sorted(steps, key=lambda step: step.start)


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
        if stated := _contradiction(step.calculation, solution[step.end :]):
            return Rejection(Reason.OUTPUT_DIFFERS, f"{solution[step.start : step.end]} is followed by {stated}")
        text += strip_marks(solution[position : step.start])
        position = step.end
        # A currency sign belongs to the value that the model writes after it has read the output.
        currency = _CURRENCY_BEFORE.search(text)
        before, text = (text[: currency.start()], currency[0].strip()) if currency else (text, "")
        if before.strip():
            segments.append(Segment(Kind.TEXT, before.strip()))
        segments.append(Segment(Kind.CODE, step.calculation.code))
    text += strip_marks(solution[position:])
    if text.strip():
        segments.append(Segment(Kind.TEXT, text.strip()))
    for segment in segments:
        if segment.kind is Kind.TEXT and _STRAY_MARK.search(segment.text):
            return Rejection(Reason.UNREADABLE_CALCULATION, f"an unclosed mark in {segment.text[-80:]!r}")
    claims = tuple(step.calculation.claim for step in steps)
    return Draft(problem, tuple(segments), claims, box_last_output="\\boxed{" not in solution)


def _contradiction(calculation: Calculation, rest: str) -> str | None:
    """The number that the text states right after a mark, if it is another one than the mark's value."""
    value = _VALUE_AFTER.match(rest)
    if value is None or agrees(value[1].rstrip(","), calculation.claim):
        return None
    return value[1]
