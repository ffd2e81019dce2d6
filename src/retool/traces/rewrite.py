"""From a worked solution to a trace: as a draft with code, or as the text that it is."""

from __future__ import annotations

import re

from retool.traces.draft import Draft, Rejection
from retool.traces.notation import NUMBER
from retool.traces.numbers import plain_number
from retool.traces.plain import has_plan, rewrite_plain
from retool.traces.reasons import Reason
from retool.traces.steps import find_steps, rewrite_steps, strip_idle_marks, strip_marks
from retool.traces.tagged import has_tags, read_tagged
from retool.types import Kind, Problem, Segment, Trace

_VALUE = rf"-?{NUMBER}(?:/\d+)?"
_SAYS_SO = re.compile(rf"(?i:\banswer\b(?:\s+is)?|####)[\s:*]*(?:\\\(|\\?\$)?\s*({_VALUE})(?![\w^])")
_ANY_VALUE = re.compile(_VALUE)


def rewrite(problem: Problem, solution: str | None) -> Draft | Rejection:
    """Rewrite manual work into code: after a plan that a rule knows, all of it at once; else step by step. A solution
    that has calls in it keeps them."""
    if not solution or not solution.strip():
        return Rejection(Reason.NO_SOLUTION, "the solution is empty")
    if has_tags(solution):
        return read_tagged(problem, solution)
    if has_plan(solution) and isinstance(draft := rewrite_plain(problem, solution), Draft):
        return draft
    concluded = conclude(solution)
    return concluded if isinstance(concluded, Rejection) else rewrite_steps(problem, concluded)


def text_trace(problem: Problem, solution: str | None) -> Trace | Rejection:
    """The solution as one segment of text that ends in a box, its own or one for the answer that it states."""
    if not solution or not solution.strip():
        return Rejection(Reason.NO_SOLUTION, "the solution is empty")
    concluded = conclude(solution)
    if isinstance(concluded, Rejection):
        return concluded
    return Trace(problem, (Segment(Kind.TEXT, strip_marks(concluded).strip()),))


def conclude(solution: str) -> str | Rejection:
    """The solution with a box in it: as it is, or with one more sentence for the answer that it states."""
    if "\\boxed{" in solution:
        return solution
    try:
        value = _stated_answer(strip_idle_marks(solution))
    except ValueError as error:
        return Rejection(Reason.UNREADABLE_CALCULATION, str(error))
    if value is None:
        return Rejection(Reason.NO_ANSWER, f"neither a box nor a number in {strip_marks(solution)[-120:].strip()!r}")
    return f"{solution.rstrip()}\nThe answer is \\boxed{{{plain_number(value) or value}}}."


def _stated_answer(solution: str) -> str | None:
    """The value after "the answer is" (or GSM8K's ####), else that of the last step, else the last number."""
    said = [*_SAYS_SO.finditer(solution)]
    if said:
        return said[-1][1]
    steps = find_steps(solution)
    if steps:
        return steps[-1].claim
    values = _ANY_VALUE.findall(strip_marks(solution))
    return values[-1] if values else None
