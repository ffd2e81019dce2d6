"""What a report is about: the systems that were compared, their curves, how training went, and what they wrote.

Every part may be missing: a report of one evaluation has one system and no curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from retool.errors import UsageError
from retool.reporting.archive import Archive
from retool.reporting.step_times import StepTimes


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
    pass_at: Mapping[str, float] = field(default_factory=dict)
    """k, as a string, -> pass@k."""
    maj_at: Mapping[str, float] = field(default_factory=dict)
    self_corrected: float | None = None
    """Share of the responses with a failed call that mended it."""
    families: Mapping[str, float] = field(default_factory=dict)
    """Accuracy by `problem.source`."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """All settings that the numbers depend on beside model and problems, as results.json has them."""
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
            pass_at=row.get("pass_at", {}),
            maj_at=row.get("maj_at", {}),
            self_corrected=row.get("self_corrected"),
            families=row.get("families", {}),
            protocol=row.get("protocol", {}),
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
class Comparison:
    """Two systems on the problems that both answered: `difference` is the accuracy of `second` − that of `first`."""

    first: str
    second: str
    problems: int
    difference: float
    ci95: tuple[float, float]
    p_value: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """What looked wrong about a run from step `begins` on. `ends` is the step at which it was over, None: it never was
    while the run was watched."""

    run: str
    name: str
    begins: int
    ends: int | None
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Purposes:
    """What code is for: the number of calls of each purpose. `moment` tells the states of one `label` apart: `step 0`
    and `step 20` of a run, "" where there is one only."""

    label: str
    moment: str
    calls: Mapping[str, int]


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
    comparisons: Sequence[Comparison] = ()
    curves: Sequence[CurveRow] = ()
    watched: Sequence[str] = ()
    """The runs whose alarms were looked for: without one, the page says that there was none."""
    alarms: Sequence[Alarm] = ()
    purposes: Sequence[Purposes] = ()
    """Those of one label stand together, the earlier moment first."""
    step_times: Sequence[StepTimes] = ()
    """Those of a typical step of each run."""
    archive: Archive | None = None
    """The trajectories to browse."""
    notes: Sequence[str] = ()
    """What a reader must know about the page itself: what was left out of it and why."""

    def __post_init__(self) -> None:
        labels = [system.label for system in self.systems]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise UsageError(f"Found two systems called {twice!r} in one report, expected different names: rename one.")

    @property
    def arms(self) -> list[str]:
        """The arms of the curves, in order of first appearance."""
        return list(dict.fromkeys(row["arm"] for row in self.curves))

    @property
    def differing(self) -> dict[str, list[Any]]:
        """The settings in which the protocols of `systems` differ, such as `rollout.max_calls`, with the value of each.

        Only systems that have a protocol are compared; None stands for a setting that one does not have.
        """
        flat = [_flat(system.protocol) for system in self.systems]
        names = dict.fromkeys(name for protocol in flat for name in protocol)
        table = {name: [protocol.get(name) for protocol in flat] for name in names}
        known = [index for index, protocol in enumerate(flat) if protocol]
        return {name: row for name, row in table.items() if any(row[i] != row[known[0]] for i in known)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
