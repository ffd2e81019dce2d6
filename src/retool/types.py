"""The nouns of the domain: problems, traces, trajectories. Every other part of the system speaks in these.

A `Trace` is reasoning as text, before token ids exist (synthesis, foreign data). A `Trajectory` is what a rollout
recorded: its ids come from the sampler and from the splice of results, and are never derived again from text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

TRACE_SCHEMA = "retool.trace/1"
TRAJECTORY_SCHEMA = "retool.trajectory/1"


class Author(StrEnum):
    """Who wrote a stretch of text. Only what the model wrote is trained on and graded."""

    MODEL = "model"
    INTERPRETER = "interpreter"


class Kind(StrEnum):
    """What a segment of a trace is: reasoning, a snippet to run, or the output of the snippet before it."""

    TEXT = "text"
    CODE = "code"
    RESULT = "result"


class CallStatus(StrEnum):
    """How an execution ended. `ok`, `error`, … are the sandbox's verdicts; `malformed`: there was nothing to run."""

    OK = "ok"
    ERROR = "error"
    EXIT = "exit"
    SIGNAL = "signal"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    SANDBOX_ERROR = "sandbox_error"
    OVERLOAD = "overload"
    MALFORMED = "malformed"


class StopReason(StrEnum):
    """Why a trajectory ended."""

    EOS = "eos"  # the model ended its turn
    TOKENS = "tokens"  # the budget of tokens (or the model's context) was used up
    TURN_TOKENS = "turn_tokens"  # one turn of the model used up `rollout.max_turn_tokens`
    CALLS = "calls"  # one more call than `rollout.max_calls` was asked for
    SECONDS = "seconds"  # `rollout.max_seconds` went by
    SANDBOX = "sandbox"  # the sandbox failed for reasons of its own; the trajectory is left out of the loss


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with one reference answer.

    `source` is the data set, or the family of a generated problem; accuracies are broken down by it.
    """

    id: str
    text: str
    answer: str
    source: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a trace by one author. `status` is the verdict of the run that produced a `RESULT`."""

    kind: Kind
    text: str
    status: CallStatus | None = None

    @property
    def author(self) -> Author:
        return Author.INTERPRETER if self.kind is Kind.RESULT else Author.MODEL


@dataclass(frozen=True, slots=True)
class Trace:
    """A worked solution of `problem` as segments; a `CODE` segment is followed by its `RESULT` once it has been run."""

    problem: Problem
    segments: tuple[Segment, ...]

    @property
    def has_code(self) -> bool:
        return any(segment.kind is Kind.CODE for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        segments = [
            {"author": s.author, "kind": s.kind, "text": s.text} | ({"status": s.status} if s.status else {})
            for s in self.segments
        ]
        return {"schema": TRACE_SCHEMA, "problem": asdict(self.problem), "segments": segments}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Trace:
        check_schema(row, TRACE_SCHEMA)
        segments = tuple(
            Segment(Kind(s["kind"]), s["text"], CallStatus(s["status"]) if s.get("status") else None)
            for s in row["segments"]
        )
        return cls(Problem(**row["problem"]), segments)


@dataclass(slots=True)
class Span:
    """A maximal stretch of a trajectory by one author.

    `ids` are the token ids as sampled or spliced; `logprobs` (natural log, one per id, model spans only) are those of
    the distribution that was sampled from, after temperature, top-p and the rest. Both are None where an endpoint
    gives text only. `model_logprobs` are those at temperature 1 with nothing left out; None: they are the same.
    `version` counts weight updates: the weights that wrote the span, or its first ids if they changed meanwhile; then
    `updates` are the places where newer ones went on: (index in `ids`, version), in order. None: nowhere.
    """

    author: Author
    ids: list[int] | None
    text: str
    logprobs: list[float] | None = None
    version: int = 0
    model_logprobs: list[float] | None = None
    updates: list[tuple[int, int]] | None = None

    def versions(self) -> list[int]:
        """The version of the weights that wrote each of `ids`."""
        places = [(0, self.version), *(self.updates or ()), (len(self.ids or ()), 0)]
        return [version for (start, version), (end, _) in pairwise(places) for _ in range(start, end)]


@dataclass(slots=True)
class ToolCall:
    """A call to the interpreter: `span` is the index of the model span that wrote it, `output` what the run printed.

    `start` is the index in `response_ids` of the call's first token, the one its opening begins in; where there are no
    ids, the index of its first character in the texts of the spans, joined.
    """

    span: int
    start: int
    code: str
    output: str
    status: CallStatus


@dataclass(slots=True)
class Trajectory:
    """One answer to one problem, as it happened. Schema `retool.trajectory/1`, one JSON object a line.

    `key` data: (`arm`, `seed`, `step`, `problem.id`, `sample`) name a trajectory; `group` ties the samples of one
    prompt of one step together. `answer` is what was found in the last complete box of a model span (None: nothing).
    `reward["total"]` is what the objective sees; the other entries are its parts. `timing` holds seconds and is the
    only part that differs between two runs in deterministic mode.
    """

    id: str
    step: int
    arm: str
    seed: int
    sample: int
    group: str
    model: str
    protocol: str
    problem: Problem
    prompt_ids: list[int] | None
    spans: list[Span] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    stop: StopReason = StopReason.EOS
    answer: str | None = None
    correct: bool = False
    reward: dict[str, float] = field(default_factory=dict)
    token_exact: bool = True
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def response_ids(self) -> list[int]:
        """Ids of all spans, both authors, in order."""
        return [token for span in self.spans for token in span.ids or ()]

    @property
    def model_mask(self) -> list[bool]:
        """For each of `response_ids`: was it written by the model?"""
        return [span.author is Author.MODEL for span in self.spans for _ in span.ids or ()]

    @property
    def executed(self) -> list[ToolCall]:
        """The calls that reached the interpreter."""
        return [call for call in self.calls if call.status is not CallStatus.MALFORMED]

    @property
    def truncated(self) -> bool:
        """Was it cut off by a limit?"""
        return self.stop not in (StopReason.EOS, StopReason.SANDBOX)

    def tokens(self, author: Author | None = None) -> int:
        """Number of response tokens, of one author or of both."""
        return sum(len(span.ids or ()) for span in self.spans if author is None or span.author is author)

    def to_json(self) -> dict[str, Any]:
        return {"schema": TRAJECTORY_SCHEMA} | asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Trajectory:
        check_schema(row, TRAJECTORY_SCHEMA)
        row = {name: value for name, value in row.items() if name != "schema"}
        row["problem"] = Problem(**row["problem"])
        row["spans"] = [Span(**(s | {"author": Author(s["author"])})) for s in row["spans"]]
        row["calls"] = [ToolCall(**(c | {"status": CallStatus(c["status"])})) for c in row["calls"]]
        row["stop"] = StopReason(row["stop"])
        return cls(**row)


def check_schema(row: dict[str, Any], expected: str) -> None:
    """Raise ValueError unless `row` carries the schema name `expected`."""
    found = row.get("schema")
    if found != expected:
        raise ValueError(f"expected a row of schema {expected!r}, found {found!r}")
