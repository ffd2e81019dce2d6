"""From a worked solution to a trace: as a draft with code, or as the text that it is."""

from __future__ import annotations

from retool.traces.draft import Draft, Reason, Rejection
from retool.traces.numbers import plain_number
from retool.traces.plain import has_plan, rewrite_plain
from retool.traces.steps import find_steps, rewrite_steps, strip_idle_marks, strip_marks
from retool.types import Kind, Problem, Segment, Trace


def rewrite(problem: Problem, solution: str | None) -> Draft | Rejection:
    """Rewrite manual work into code: after a plan that a rule knows, all of it at once; else step by step."""
    if not solution or not solution.strip():
        return Rejection(Reason.NO_SOLUTION, "the solution is empty")
    return rewrite_plain(problem, solution) if has_plan(solution) else rewrite_steps(problem, solution)


def text_trace(problem: Problem, solution: str | None) -> Trace | Rejection:
    """The solution as one segment of text that ends in a box: its own, or one for the value of its last step."""
    if not solution or not solution.strip():
        return Rejection(Reason.NO_SOLUTION, "the solution is empty")
    text = strip_marks(solution).strip()
    if "\\boxed{" not in text:
        try:
            steps = find_steps(strip_idle_marks(solution))
        except ValueError as error:
            return Rejection(Reason.UNREADABLE_CALCULATION, str(error))
        value = plain_number(steps[-1].calculation.claim) if steps else None
        if value is None:
            return Rejection(Reason.NO_ANSWER, f"neither a box nor an arithmetic step in {text[-120:]!r}")
        text = f"{text}\n{conclusion(value)}"
    return Trace(problem, (Segment(Kind.TEXT, text),))


def conclusion(value: str) -> str:
    """The sentence that ends a trace whose solution has no box of its own."""
    return f"The answer is \\boxed{{{value}}}."
