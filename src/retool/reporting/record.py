"""What a report is about: the systems that were compared, their curves, and examples of what they wrote.

Every part may be missing: a report of one evaluation has one system and no curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from retool.errors import UsageError
from retool.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A model in one state and one setting, as an evaluation found it. Fractions are 0-1; None is undefined."""

    label: str
    accuracy: float
    ci95: tuple[float, float] | None
    problems: int
    samples: int
    """Samples per problem."""
    truncated: float | None = None
    code_ratio: float | None = None
    code_pass_rate: Mapping[str, float | None] = field(default_factory=dict)
    """Share of responses whose last call ran, for those with a `correct` and an `incorrect` answer."""
    families: Mapping[str, float] = field(default_factory=dict)
    """Accuracy by `problem.source`."""
    note: str = ""
    """A few words on what this system is."""

    @classmethod
    def from_json(cls, label: str, row: Mapping[str, Any], note: str = "") -> System:
        """From an evaluation's JSON object, such as an entry of `summary.json`; keys that a report does not show are
        left aside."""
        return cls(
            label=label,
            note=note,
            accuracy=row["accuracy"],
            ci95=tuple(row["ci95"]) if row.get("ci95") else None,
            problems=row["problems"],
            samples=row["samples"],
            truncated=row.get("truncated"),
            code_ratio=row.get("code_ratio"),
            code_pass_rate=row.get("code_pass_rate", {}),
            families=row.get("families", {}),
        )


class CurveRow(TypedDict):
    """One point of one curve. `metric` is a name of the analysis (`code_ratio`, `response_length.model`), `accuracy`,
    `reward`, or any other; a `value` of None leaves a gap. `low` and `high` draw a band."""

    arm: str
    step: int
    metric: str
    value: float | None
    low: NotRequired[float]
    high: NotRequired[float]


@dataclass(frozen=True, slots=True)
class Example:
    """A trajectory to be read, and the stage that it comes from (`cold start`, `step 20`).

    `prompt` is the text of `trajectory.prompt_ids`, for whoever has the tokenizer at hand.
    """

    stage: str
    trajectory: Trajectory
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A page about one or several systems.

    A trained system whose `label` is also the `arm` of curves has the same colour everywhere.
    """

    title: str
    summary: str = ""
    """What happened, in a sentence or two."""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """What a reader needs in order to judge or repeat it: seed, seconds, the model's size, the sandbox's isolation."""
    systems: Sequence[System] = ()
    curves: Sequence[CurveRow] = ()
    examples: Sequence[Example] = ()

    def __post_init__(self) -> None:
        labels = [system.label for system in self.systems]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise UsageError(f"Found two systems called {twice!r} in one report, expected different names: rename one.")

    @property
    def arms(self) -> list[str]:
        """The arms of the curves, in order of first appearance."""
        return list(dict.fromkeys(row["arm"] for row in self.curves))
