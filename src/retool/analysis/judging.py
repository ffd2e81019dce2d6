"""A language model's opinion on what code is for, as in the paper, and how far it agrees with the rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retool.analysis.purpose import Purpose

_DEFINITIONS = {
    Purpose.CALCULATION: "it evaluates a formula, or runs through fixed steps, to get a value",
    Purpose.VERIFICATION: "it checks a result or a claim that the reasoning already has",
    Purpose.SEARCH: "it goes through candidates and keeps those that meet a condition, or the best one",
    Purpose.SYMBOLIC: "it does algebra or calculus with symbols, such as solving equations exactly",
    Purpose.NUMERICAL: "it approximates: roots, optima, integrals, linear systems",
    Purpose.SIMULATION: "it draws at random, or plays a process through",
    Purpose.PLOTTING: "it draws a picture",
    Purpose.DATA: "it works on tables, texts, dates or lists of measurements",
    Purpose.OTHER: "none of these, or it computes nothing",
}
_WORD = re.compile(r"[a-z]+")
_LONGEST = 2000  # characters of each part that the judge is shown


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A call in its context: what a judge is shown."""

    problem: str
    before: str
    code: str
    output: str


def question(exhibit: Exhibit) -> str:
    """The prompt that asks for the primary purpose of a call, to be answered in one word."""
    classes = "\n".join(f"- {purpose}: {definition}" for purpose, definition in _DEFINITIONS.items())
    return (
        "Someone solves a problem by reasoning and runs Python code in the middle of it. Which of these is the primary "
        f"purpose of the code, in its context?\n{classes}\n\n"
        f"Problem:\n{_cut(exhibit.problem)}\n\nReasoning before the code:\n{_cut(exhibit.before, tail=True)}\n\n"
        f"Code:\n{_cut(exhibit.code)}\n\nOutput:\n{_cut(exhibit.output)}\n\n"
        "Answer with one of the words before the colons, and nothing else."
    )


def read_verdict(reply: str) -> Purpose | None:
    """The purpose that a reply names: the only one, or the last; None if it names none."""
    named = [word for word in _WORD.findall(reply.lower()) if word in _DEFINITIONS]
    return Purpose(named[-1]) if named else None


def agreement(pairs: Sequence[tuple[Purpose, Purpose | None]]) -> dict[str, Any]:
    """How far the rules (first) and a judge (second, None: no readable answer) agree.

    Returns {`calls`, `unread`, `agreed` (share of the calls that were read), `kappa`, `confusion`: {rules: {judge:
    calls}}}. Cohen's kappa (Educ. Psychol. Meas. 20, 1960) is (p_o - p_e) / (1 - p_e): the agreement beyond what two
    raters with these frequencies have by chance. It is None if nothing was read, or if chance alone agrees always.
    """
    read = [(rule, judge) for rule, judge in pairs if judge is not None]
    counts = Counter(read)
    rules, judges = Counter(rule for rule, _ in read), Counter(judge for _, judge in read)
    total = len(read)
    agreed = sum(rule is judge for rule, judge in read) / total if total else None
    chance = sum(rules[purpose] * judges[purpose] for purpose in Purpose) / total**2 if total else 1.0
    return {
        "calls": len(pairs),
        "unread": len(pairs) - total,
        "agreed": agreed,
        "kappa": (agreed - chance) / (1 - chance) if chance < 1.0 else None,
        "confusion": {
            rule.value: {judge.value: counts[rule, judge] for judge in Purpose if counts[rule, judge]}
            for rule in Purpose
            if rules[rule]
        },
    }


def _cut(text: str, tail: bool = False) -> str:
    if len(text) <= _LONGEST:
        return text
    return "…" + text[-_LONGEST:] if tail else text[:_LONGEST] + "…"
