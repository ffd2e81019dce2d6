"""From a worked solution to a trace: as a draft with code, or as the text that it is."""

from __future__ import annotations

import re

from retool.traces.bare import with_value
from retool.traces.draft import Draft, Rejection
from retool.traces.notation import NUMBER
from retool.traces.numbers import plain_number
from retool.traces.plain import has_plan, rewrite_plain
from retool.traces.reasons import Reason
from retool.traces.steps import find_steps, rewrite_steps, strip_idle_marks, strip_marks
from retool.traces.tagged import has_tags, read_tagged
from retool.types import Kind, Problem, Segment, Trace

_VALUE = rf"-?{NUMBER}(?:/\d+)?"
_SAYS_SO = r"(?:(?i:\banswer\b(?:\s+is)?)[\s:*]*|####\s*)"
_STATED_NUMBER = re.compile(rf"{_SAYS_SO}(?:\\\(|\\?\$)?\s*(?P<value>{_VALUE})(?![\w^]|[.,]\d|\s*[-+*/=×÷])")
_STATED_FORMULA = re.compile(rf"{_SAYS_SO}(?:\$|\\\()(?P<value>(?:\\[a-zA-Z]+|[^$\\\n](?<![a-zA-Z]{{2}}))+)(?:\$|\\\))")
_STATED_WORDS = re.compile(rf"{_SAYS_SO}(?P<value>[a-zA-Z(][a-zA-Z() ]{{,40}}?)\.?\s*\Z")
_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*(?:\{|(?P<bare>[0-9a-zA-Z]))")
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
    """The solution with a box in it: its own, one around the answer that it states, or one in a sentence more for what
    it comes to."""
    solution = _BOX.sub(lambda box: f"\\boxed{{{box['bare']}}}" if box["bare"] else "\\boxed{", solution)
    if "\\boxed{" in solution:
        return solution
    solution = strip_idle_marks(solution)
    if stated := _last_statement(solution):
        begin, end = stated.span("value")
        value = plain_number(stated["value"]) or stated["value"]
        before = solution[:begin].rstrip("# \n") + "\nThe answer is " if "#" in stated[0] else solution[:begin]
        return f"{before}\\boxed{{{value}}}{solution[end:]}"
    solution = with_value(solution)
    try:
        value = _value_at_the_end(solution)
    except ValueError as error:
        return Rejection(Reason.UNREADABLE_CALCULATION, str(error))
    if value is None:
        return Rejection(Reason.NO_ANSWER, f"neither a box nor a number in {strip_marks(solution)[-120:].strip()!r}")
    return f"{solution.rstrip()}\nThe answer is \\boxed{{{plain_number(value) or value}}}."


def _last_statement(solution: str) -> re.Match[str] | None:
    """Where the solution last says what "the answer is", or after GSM8K's ####: a number, a formula, or last words."""
    said = [
        statement
        for pattern in (_STATED_NUMBER, _STATED_FORMULA, _STATED_WORDS)
        for statement in pattern.finditer(solution)
    ]
    return max(said, key=lambda statement: statement.start(), default=None)


def _value_at_the_end(solution: str) -> str | None:
    """The value of the last step, else the last number."""
    steps = find_steps(solution)
    if steps:
        return steps[-1].claim
    values = _ANY_VALUE.findall(strip_marks(solution))
    return values[-1] if values else None
