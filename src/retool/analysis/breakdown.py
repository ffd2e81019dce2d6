"""What calls consist of: the shares of their purposes, verdicts and errors, by arm and step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from retool.analysis.intervals import estimate
from retool.analysis.records import Call


class _Record(Protocol):
    arm: str
    step: int


R = TypeVar("R", bound=_Record)


def by_arm_and_step(records: Iterable[R]) -> dict[tuple[str, int], list[R]]:
    """Records of the same arm and step together; arms in order of appearance, steps in order."""
    groups: dict[tuple[str, int], list[R]] = defaultdict(list)
    for record in records:
        groups[record.arm, record.step].append(record)
    arms = list(dict.fromkeys(arm for arm, _ in groups))
    return dict(sorted(groups.items(), key=lambda item: (arms.index(item[0][0]), item[0][1])))


def breakdown(calls: Sequence[Call], by: Literal["purpose", "status", "error_type"]) -> list[dict[str, Any]]:
    """How often each value of the field `by` occurs among the calls of an arm and step that have one.

    Rows {arm, step, `by`, calls, share, low, high, in_correct, in_incorrect, accuracy}: `low` and `high` are a 95 %
    bootstrap interval of the share over problems; `in_correct` is the share among the calls of correct responses (None:
    there are none), `accuracy` the share of these calls that stand in a correct response.
    """
    rows = []
    for (arm, step), group in by_arm_and_step(call for call in calls if getattr(call, by) is not None).items():
        values = [str(getattr(call, by)) for call in group]
        counts = Counter(values)
        names = [name for name, _ in counts.most_common()]
        is_name_CN = np.array([[value == name for name in names] for value in values], dtype=float)
        shares = estimate(is_name_CN, np.ones_like(is_name_CN), [call.problem for call in group])
        right = Counter(value for value, call in zip(values, group, strict=True) if call.correct)
        wrong = counts - right
        for name, share in zip(names, shares, strict=True):
            found = asdict(share)
            rows.append(
                {
                    "arm": arm,
                    "step": step,
                    by: name,
                    "calls": counts[name],
                    "share": found["value"],
                    "low": found["low"],
                    "high": found["high"],
                    "in_correct": _share(right, name),
                    "in_incorrect": _share(wrong, name),
                    "accuracy": right[name] / counts[name],
                }
            )
    return rows


def changes(rows: Sequence[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """From the rows of `breakdown`: the share of each value at an arm's first and last step, and the difference."""
    steps: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        steps[row["arm"]].add(row["step"])
    shares = {(row["arm"], row["step"], row[by]): row["share"] for row in rows}
    found = []
    for arm, name in dict.fromkeys((row["arm"], row[by]) for row in rows):
        first, last = min(steps[arm]), max(steps[arm])
        before, after = shares.get((arm, first, name), 0.0), shares.get((arm, last, name), 0.0)
        if first < last:
            found.append(
                {
                    "arm": arm,
                    by: name,
                    "first_step": first,
                    "last_step": last,
                    "before": before,
                    "after": after,
                    "difference": after - before,
                }
            )
    return found


def _share(counts: Counter[str], name: str) -> float | None:
    total = counts.total()
    return counts[name] / total if total else None
