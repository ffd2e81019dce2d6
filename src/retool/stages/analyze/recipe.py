"""From trajectories to how a model uses the interpreter: curves, corrections, purposes, use, cost, comparisons.

analysis.json   everything but the rows of single responses and calls
tables/         NAME.csv and NAME.parquet: `tables.py` lists them, docs/analysis.md explains them
replies/        what a judge said, so that it need not be asked twice
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from retool.analysis import (
    Call,
    Correction,
    Response,
    Revision,
    behaviour,
    best_number_of_calls,
    breakdown,
    changes,
    cost,
    curves,
    head_to_head,
    observe,
    tool_health,
    usefulness,
    where,
)
from retool.config.analysis import AnalysisConfig
from retool.evaluation import compare, summarize
from retool.files import publish
from retool.stages.analyze.judge import Docket, judge
from retool.stages.analyze.sources import labels, stored_results, stream
from retool.stages.analyze.tables import COLUMNS, write_tables
from retool.types import Trajectory

_ROWS_OF_THEIR_OWN = ("responses", "calls", "problems", "judged")  # too many for a JSON to be read by people


@dataclass(slots=True)
class _Arm:
    """What is kept of the trajectories of one source and arm, with their verdicts by step."""

    responses: list[Response] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    verdicts: dict[int, list[Trajectory]] = field(default_factory=dict)
    stored: dict[str, Any] | None = None

    def add(self, trajectory: Trajectory, name: str) -> list[Call]:
        observed = observe(trajectory, name)
        self.responses.append(observed.response)
        self.calls += observed.calls
        self.corrections += observed.corrections
        self.revisions += observed.revisions
        self.verdicts.setdefault(trajectory.step, []).append(_without_texts(trajectory))
        return observed.calls

    def renamed(self, name: str, stored: dict[str, Any] | None) -> _Arm:
        """Under another name, with what its evaluation wrote down, if it did."""
        return _Arm(
            [replace(response, arm=name) for response in self.responses],
            [replace(call, arm=name) for call in self.calls],
            [replace(correction, arm=name) for correction in self.corrections],
            [replace(revision, arm=name) for revision in self.revisions],
            self.verdicts,
            stored,
        )

    def responses_by_step(self) -> dict[int, list[Response]]:
        groups: dict[int, list[Response]] = {step: [] for step in sorted(self.verdicts)}
        for response in self.responses:
            groups[response.step].append(response)
        return groups

    def last_responses(self) -> list[Response]:
        return self.responses_by_step()[max(self.verdicts)]

    def last_verdicts(self) -> list[Trajectory]:
        return self.verdicts[max(self.verdicts)]


def analyze_runs(
    paths: Sequence[Path], out: Path | None = None, config: AnalysisConfig | None = None
) -> dict[str, Any]:
    """Analyse runs, evaluations and files (`sources.py`); writes what the top of this file lists to `out`.

    An arm is named after its path, and after its own name too where a path holds several. Returns `evaluations`
    (accuracy and behaviour of each arm that has a single step), `agreement` with a judge (None: there was none), and
    the tables but for those of single responses, calls and problems.
    """
    config = config or AnalysisConfig()
    docket = Docket(config.judge_calls) if config.judge else None
    arms, names = _read(paths, docket)
    tables, judged = _tables(arms), {"judged": [], "agreement": None}
    if docket is not None:
        judged = asyncio.run(judge(docket, config.judge, out and out / "replies"))
    tables["judged"] = [row | {"arm": names[row["arm"]]} for row in judged["judged"]]
    found = {
        "evaluations": {name: _evaluation(arm) for name, arm in arms.items() if len(arm.verdicts) == 1},
        "agreement": judged["agreement"],
    } | {name: rows for name, rows in tables.items() if name not in _ROWS_OF_THEIR_OWN}
    if out:
        publish(out / "analysis.json", json.dumps(found, indent=2) + "\n")
        write_tables(out / "tables", tables)
    return found


def _read(paths: Sequence[Path], docket: Docket | None) -> tuple[dict[str, _Arm], dict[str, str]]:
    """The arms by name, and these names by the longest form, `PATH/ARM`, that records have while files are read."""
    arms: dict[str, _Arm] = {}
    names: dict[str, str] = {}
    for path, label in labels(paths).items():
        found: dict[str, _Arm] = {}
        for trajectory in stream(path):
            name = f"{label}/{trajectory.arm}"
            calls = found.setdefault(name, _Arm()).add(trajectory, name)
            if docket is not None:
                docket.offer(trajectory, calls)
        if len(found) > 1:
            names |= {name: name for name in found}
            arms |= found
        else:
            names |= {name: label for name in found}
            (arm,) = found.values()
            arms[label] = arm.renamed(label, stored_results(path))
    return arms, names


def _tables(arms: Mapping[str, _Arm]) -> dict[str, list[dict[str, Any]]]:
    responses = [response for arm in arms.values() for response in arm.responses]
    calls = [call for arm in arms.values() for call in arm.calls]
    purposes, uses = breakdown(calls, "purpose"), usefulness(responses)
    return {
        "responses": _rows(responses, "responses"),
        "calls": _rows(calls, "calls"),
        "corrections": _rows([each for arm in arms.values() for each in arm.corrections], "corrections"),
        "revisions": _rows([each for arm in arms.values() for each in arm.revisions], "revisions"),
        "curves": [row for name, arm in arms.items() for row in curves(arm.responses_by_step(), name)],
        "health": [
            {"arm": name, "step": step} | tool_health(group, [call for call in arm.calls if call.step == step])
            for name, arm in arms.items()
            for step, group in arm.responses_by_step().items()
        ],
        "verdicts": breakdown(calls, "status"),
        "errors": breakdown(calls, "error_type"),
        "purposes": purposes,
        "purpose_changes": changes(purposes, "purpose"),
        "usefulness": uses,
        "best_number_of_calls": best_number_of_calls(uses),
        "cost": cost(responses),
    } | _comparisons(arms)


def _rows(records: Sequence[Response | Call | Correction | Revision], table: str) -> list[dict[str, Any]]:
    return [{column: getattr(record, column) for column in COLUMNS[table]} for record in records]


def _comparisons(arms: Mapping[str, _Arm]) -> dict[str, list[dict[str, Any]]]:
    """Each two arms that share problems, at their last steps: in all, by kind of problem, problem by problem."""
    tables: dict[str, list[dict[str, Any]]] = {"comparisons": [], "where": [], "problems": []}
    for (first, ours), (second, theirs) in combinations(arms.items(), 2):
        problems = head_to_head(ours.last_responses(), theirs.last_responses())
        if not problems:
            continue
        found = compare(ours.last_verdicts(), theirs.last_verdicts())
        sides = zip(("first_accuracy", "second_accuracy"), found["accuracy"], strict=True)
        interval = dict(zip(("low", "high"), found["ci95"], strict=True))
        kept = {key: found[key] for key in ("problems", "difference", "p_value", "better", "worse", "equal")}
        tables["comparisons"].append({"first": first, "second": second} | dict(sides) | kept | interval)
        tables["where"] += where(problems)
        tables["problems"] += problems
    return tables


def _evaluation(arm: _Arm) -> dict[str, Any]:
    """As the evaluation itself wrote it down, else measured here."""
    return arm.stored or summarize(arm.last_verdicts()) | behaviour(arm.responses)


def _without_texts(trajectory: Trajectory) -> Trajectory:
    """What evaluation reads of it."""
    return replace(trajectory, prompt_ids=None, spans=[], calls=[], reward={}, timing={})
