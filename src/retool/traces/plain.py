"""Manual work in plain text into code: the steps between a plan and the conclusion give way to a snippet."""

from __future__ import annotations

import re

from retool.traces.draft import Draft, Rejection
from retool.traces.plain_rules import PLAIN_RULES
from retool.traces.reasons import Reason
from retool.types import Kind, Problem, Segment

_CONCLUSION = re.compile(r"So the answer is \\boxed\{([^{}]*)\}\.")


def has_plan(solution: str) -> bool:
    return any(rule.plan.search(solution) for rule in PLAIN_RULES)


def rewrite_plain(problem: Problem, solution: str) -> Draft | Rejection:
    """Keep the plan that comes first and the conclusion, and put a snippet in the place of the work between them."""
    plans = [(match.start(), rule, match) for rule in PLAIN_RULES if (match := rule.plan.search(solution))]
    if not plans:
        return Rejection(Reason.NO_RULE, "no plan that a rule knows")
    _, rule, plan = min(plans, key=lambda found: found[0])
    conclusion = _CONCLUSION.search(solution, plan.end())
    if conclusion is None:
        return Rejection(Reason.NO_ANSWER, "no sentence 'So the answer is \\boxed{…}.' after the plan")
    segments = (
        Segment(Kind.TEXT, solution[: plan.end()].strip()),
        Segment(Kind.CODE, rule.code(plan)),
        Segment(Kind.TEXT, solution[conclusion.start() :].strip()),
    )
    return Draft(problem, segments, (conclusion[1],))
