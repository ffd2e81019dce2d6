"""What passes between the steps of a rewrite: drafts, the runs of their snippets, and reasons to give one up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from retool.traces.reasons import Reason
from retool.types import CallStatus, Kind, Problem, Segment


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was given up, and what was found."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A rewritten solution whose snippets have not been run yet: segments of text and code, no results.

    `claims` has one entry per code segment: the value that the text after it goes on with. If they are `imagined`, they
    are instead whole outputs as somebody thought them up (None: nothing was), and what matters is whether the text
    relies on what they have wrong.
    """

    problem: Problem
    segments: tuple[Segment, ...]
    claims: tuple[str | None, ...]
    imagined: bool = False

    @property
    def snippets(self) -> list[str]:
        return [segment.text for segment in self.segments if segment.kind is Kind.CODE]

    def to_json(self) -> dict[str, Any]:
        return {
            "problem": asdict(self.problem),
            "segments": [{"kind": segment.kind, "text": segment.text} for segment in self.segments],
            "claims": list(self.claims),
            "imagined": self.imagined,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Draft:
        segments = tuple(Segment(Kind(segment["kind"]), segment["text"]) for segment in row["segments"])
        return cls(Problem(**row["problem"]), segments, tuple(row["claims"]), row["imagined"])


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a snippet: the verdict and what the model gets to read."""

    status: CallStatus
    output: str
