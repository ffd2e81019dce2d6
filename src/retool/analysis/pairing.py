"""Two systems on the same problems, problem by problem: who wins where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from retool.analysis.intervals import estimate
from retool.analysis.records import Response


def head_to_head(first: Sequence[Response], second: Sequence[Response]) -> list[dict[str, Any]]:
    """A row for each problem that both have: the same text, whatever its id (`Response.question`).

    Rows {first, second (the arms), problem, source, first_accuracy, second_accuracy, difference (second − first),
    first_code_ratio, second_code_ratio}, those that the second wins by most at the top.
    """
    theirs = _by_question(second)
    rows = []
    for question, ours in _by_question(first).items():
        if question not in theirs:
            continue
        accuracies = [fmean(r.correct for r in side) for side in (ours, theirs[question])]
        rows.append(
            {
                "first": ours[0].arm,
                "second": theirs[question][0].arm,
                "problem": ours[0].problem,
                "source": ours[0].source,
                "first_accuracy": accuracies[0],
                "second_accuracy": accuracies[1],
                "difference": accuracies[1] - accuracies[0],
                "first_code_ratio": fmean(r.executed > 0 for r in ours),
                "second_code_ratio": fmean(r.executed > 0 for r in theirs[question]),
            }
        )
    return sorted(rows, key=lambda row: -row["difference"])


def _user_of_code(row: Mapping[str, Any]) -> str:
    """Which of the two calls on this problem, in at least half of its responses."""
    users = [row[side] for side in ("first", "second") if row[f"{side}_code_ratio"] >= 0.5]
    return " and ".join(users) or "neither"


def where(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From the rows of `head_to_head`, who wins where: by `source` of the problem, and by which arm calls there
    (`code`: in at least half of its responses to the problem).

    Rows {first, second, by, value, problems, first_accuracy, second_accuracy, difference, low, high, better, worse},
    with a 95 % bootstrap interval of the difference over problems; on `better` problems the second is ahead.
    """
    ways: dict[str, Callable[[Mapping[str, Any]], str]] = {"source": lambda row: row["source"], "code": _user_of_code}
    found = []
    for by, way in ways.items():
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[way(row)].append(row)
        for value, group in sorted(groups.items()):
            differences = [row["difference"] for row in group]
            numerators_P1 = np.array(differences)[:, None]
            (mean,) = estimate(numerators_P1, np.ones_like(numerators_P1), [row["problem"] for row in group])
            found.append(
                {
                    "first": group[0]["first"],
                    "second": group[0]["second"],
                    "by": by,
                    "value": value,
                    "problems": len(group),
                    "first_accuracy": fmean(row["first_accuracy"] for row in group),
                    "second_accuracy": fmean(row["second_accuracy"] for row in group),
                    "difference": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "better": sum(difference > 0 for difference in differences),
                    "worse": sum(difference < 0 for difference in differences),
                }
            )
    return found


def _by_question(responses: Sequence[Response]) -> dict[str, list[Response]]:
    groups: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        groups[response.question].append(response)
    return groups
