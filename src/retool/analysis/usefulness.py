"""Does calling help, up to where, and what does it cost?

Accuracy by how a response used the interpreter is an observation, no experiment: hard problems take more calls. The
column `within_problem` leaves the problem's difficulty out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from retool.analysis.breakdown import by_arm_and_step
from retool.analysis.intervals import estimate
from retool.analysis.records import Response

_MANY = 8  # calls from which on responses are counted together
_LEAST_SHARE = 0.05  # of the responses, that a number of calls needs to be called the best


def _calls(r: Response) -> str:
    return str(r.executed) if r.executed < _MANY else f"{_MANY}+"


def _first_call(r: Response) -> str:
    if r.first_call_at is None:
        return "no call"
    quarter = min(3, int(4 * r.first_call_at))
    return f"{25 * quarter}-{25 * quarter + 25} %"


def _outcome(r: Response) -> str:
    if not r.executed:
        return "nothing executed"
    if not r.failed:
        return "no failure"
    return "corrected" if r.corrections else "not corrected"


_WAYS: dict[str, Callable[[Response], str]] = {"calls": _calls, "first_call": _first_call, "failures": _outcome}


def usefulness(responses: Sequence[Response]) -> list[dict[str, Any]]:
    """Accuracy of the responses of an arm and step by how they used the interpreter.

    `by` is `calls` (number executed), `first_call` (quarter of the response that the first one begins in) or `failures`
    (`no failure`, `corrected`, `not corrected`, `nothing executed`). Rows {arm, step, by, value, responses, share,
    accuracy, low, high, within_problem, tokens}: `low` and `high` are a 95 % bootstrap interval over problems,
    `within_problem` is the mean of a response's correctness less that of all responses to its problem (above 0: those
    that did so were right more often than the others of the same problem), `tokens` the mean length, None without ids.
    """
    rows = []
    for (arm, step), group in by_arm_and_step(responses).items():
        expected = _accuracies(group)
        for by, way in _WAYS.items():
            values = [way(response) for response in group]
            names = sorted(set(values))
            is_value_TN = np.array([[value == name for name in names] for value in values], dtype=float)
            correct_T1 = np.array([[response.correct] for response in group], dtype=float)
            found = estimate(correct_T1 * is_value_TN, is_value_TN, [response.problem for response in group])
            for name, accuracy in zip(names, found, strict=True):
                those = [response for response, value in zip(group, values, strict=True) if value == name]
                rows.append(
                    {
                        "arm": arm,
                        "step": step,
                        "by": by,
                        "value": name,
                        "responses": len(those),
                        "share": len(those) / len(group),
                        "accuracy": accuracy.value,
                        "low": accuracy.low,
                        "high": accuracy.high,
                        "within_problem": fmean(r.correct - expected[r.problem] for r in those),
                        "tokens": _mean_tokens(those),
                    }
                )
    return rows


def best_number_of_calls(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From the rows of `usefulness`, where calling stops helping: of each arm and step the number of calls with the
    highest accuracy, among those that at least 5 % of the responses made, and the accuracy of responses with more."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["by"] == "calls":
            groups[row["arm"], row["step"]].append(row)
    found = []
    for (arm, step), group in groups.items():
        best = max((row for row in group if row["share"] >= _LEAST_SHARE), key=lambda row: row["accuracy"])
        beyond = [row for row in group if row["value"] > best["value"]]  # of one digit each, so in order
        more = sum(row["responses"] for row in beyond)
        found.append(
            {
                "arm": arm,
                "step": step,
                "calls": best["value"],
                "accuracy": best["accuracy"],
                "low": best["low"],
                "high": best["high"],
                "responses_with_more": more,
                "accuracy_with_more": sum(r["accuracy"] * r["responses"] for r in beyond) / more if more else None,
            }
        )
    return found


def cost(responses: Sequence[Response]) -> list[dict[str, Any]]:
    """What responses and right answers cost, of each arm and step.

    Tokens a response: `reasoning_tokens` and `call_tokens` by the model, `result_tokens` by the interpreter; in all
    `tokens_per_correct` for each correct answer, as `calls_per_correct` and `tool_seconds_per_correct`. None: no ids,
    or no correct answer.
    """
    rows = []
    for (arm, step), group in by_arm_and_step(responses).items():
        count, right = len(group), sum(response.correct for response in group)
        counted = all(response.model_tokens is not None for response in group)
        model = sum(response.model_tokens or 0 for response in group)
        calls = sum(response.call_tokens or 0 for response in group)
        results = sum(response.interpreter_tokens or 0 for response in group)
        rows.append(
            {
                "arm": arm,
                "step": step,
                "responses": count,
                "correct": right,
                "reasoning_tokens": (model - calls) / count if counted else None,
                "call_tokens": calls / count if counted else None,
                "result_tokens": results / count if counted else None,
                "tokens_per_correct": (model + results) / right if counted and right else None,
                "calls_per_correct": sum(r.executed for r in group) / right if right else None,
                "tool_seconds_per_correct": sum(r.tool_seconds or 0.0 for r in group) / right if right else None,
            }
        )
    return rows


def _accuracies(group: Sequence[Response]) -> dict[str, float]:
    samples: dict[str, list[bool]] = defaultdict(list)
    for response in group:
        samples[response.problem].append(response.correct)
    return {problem: fmean(correct) for problem, correct in samples.items()}


def _mean_tokens(group: Sequence[Response]) -> float | None:
    if any(response.model_tokens is None for response in group):
        return None
    return fmean(response.model_tokens + response.interpreter_tokens for response in group)
