"""What a judge is asked about a worked solution before it is rewritten, and how its verdict is read."""

from __future__ import annotations

import re
from typing import Any

from retool.traces.draft import Rejection
from retool.traces.reasons import Reason
from retool.types import Problem

INSTRUCTION = """\
You check material from which a language model will learn to reason. Judge the problem and its worked solution:
- Is the problem complete and unambiguous, so that it has one answer?
- Is the reference answer right?
- Is the solution sound: does every step follow, or is a wrong turn noticed and corrected? Does it lead to the answer?

Think it through briefly. Then end with one line: "VERDICT: sound", or "VERDICT: unsound" and in a few words why."""

_REQUEST = """\
Problem:
{problem}

Reference answer:
{answer}

Solution:
{solution}"""

_VERDICT = re.compile(r"^\W*VERDICT:\W*(?P<verdict>sound|unsound)\b(?P<why>.*)$", re.MULTILINE | re.IGNORECASE)


def ask_judge(problem: Problem, solution: str) -> list[dict[str, Any]]:
    """The messages that ask for a verdict."""
    request = _REQUEST.format(problem=problem.text, answer=problem.answer, solution=solution)
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": request}]


def read_verdict(reply: str) -> Rejection | None:
    """None if the last verdict in a reply is that all is sound."""
    verdicts = [*_VERDICT.finditer(reply)]
    if not verdicts:
        return Rejection(Reason.UNREADABLE_VERDICT, f"the reply ends {reply[-120:]!r}")
    if verdicts[-1]["verdict"].lower() == "sound":
        return None
    return Rejection(Reason.JUDGED_UNSOUND, verdicts[-1]["why"].strip(' .,:;-–—*"') or "no reason given")
