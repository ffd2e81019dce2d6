"""What passes between the stages of a synthesis: problems on their way to traces."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from retool.traces import Draft, Reason, Rejection
from retool.types import Problem, Trace


@dataclass(frozen=True, slots=True)
class Row:
    """A problem, and what has become of it so far: its worked solution, the draft that rewrites it (None: it stays
    text) with the teacher's reply that the draft was read from, the traces, and the share of a model's responses that
    were right."""

    problem: Problem
    solution: str | None = None
    draft: Draft | None = None
    reply: str | None = None
    traces: tuple[Trace, ...] = ()
    pass_rate: float | None = None

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"problem": asdict(self.problem), "solution": self.solution}
        if self.draft:
            row["draft"] = self.draft.to_json()
        if self.reply is not None:
            row["reply"] = self.reply
        if self.traces:
            row["traces"] = [trace.to_json() for trace in self.traces]
        if self.pass_rate is not None:
            row["pass_rate"] = self.pass_rate
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Row:
        return cls(
            Problem(**row["problem"]),
            row["solution"],
            Draft.from_json(row["draft"]) if "draft" in row else None,
            row.get("reply"),
            tuple(map(Trace.from_json, row.get("traces", ()))),
            row.get("pass_rate"),
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """A problem that a stage gave up, and why."""

    problem: Problem
    rejection: Rejection

    def to_json(self) -> dict[str, Any]:
        return {
            "problem": asdict(self.problem),
            "reason": self.rejection.reason,
            "detail": self.rejection.detail,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Dropped:
        return cls(Problem(**row["problem"]), Rejection(Reason(row["reason"]), row["detail"]))


Outcome = Row | Rejection
"""What a stage makes of a row."""
