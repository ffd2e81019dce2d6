"""What trajectories ask for: turns of so many tokens, and calls between them that take so long.

From recorded trajectories, or drawn: lengths log-normal, cut at the budget. A log-normal is what lengths of reasoning
look like (many of ordinary length, few that are several times as long), and has one number for the tail: sigma. The
median is found so that the mean after the cut is the published one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retool.types import Author, Trajectory


@dataclass(frozen=True, slots=True)
class Turn:
    """`new_tokens` are read (a prompt, a result), `tokens` are written; then a call of `tool_seconds`, or the end."""

    new_tokens: int
    tokens: int
    tool_seconds: float | None


Turns = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class LongTail:
    """Responses of `mean` tokens, at most `longest`; `calls` a response (geometric), results of `result_tokens`, calls
    that take `tool_seconds` on average (exponential)."""

    mean: float = 8192
    longest: int = 16384
    sigma: float = 0.7
    calls: float = 4.0
    tool_seconds: float = 0.2
    result_tokens: int = 60
    prompt_tokens: int = 256

    def draw(self, count: int, seed: int) -> list[Turns]:
        rng = np.random.default_rng(seed)
        mu = log_median(self.mean, self.longest, self.sigma)
        lengths = np.minimum(np.exp(mu + self.sigma * rng.standard_normal(count)), self.longest)
        calls = rng.geometric(1 / (1 + self.calls), count) - 1
        return [self._cut(max(16, int(length)), int(n), rng) for length, n in zip(lengths, calls, strict=True)]

    def _cut(self, tokens: int, calls: int, rng: np.random.Generator) -> Turns:
        """The calls fall anywhere into the response."""
        calls = min(calls, tokens // 16)
        borders = np.unique(rng.integers(1, tokens, calls))
        calls = len(borders)
        lengths = np.diff(np.concatenate([[0], borders, [tokens]]))
        tools = [*rng.exponential(self.tool_seconds, calls), None]
        new = [self.prompt_tokens, *[self.result_tokens] * calls]
        return tuple(
            Turn(read, int(written), None if tool is None else float(tool))
            for read, written, tool in zip(new, lengths, tools, strict=True)
        )


def log_median(mean: float, longest: int, sigma: float) -> float:
    """mu of a log-normal whose mean is `mean` once what is longer has been cut to `longest`, by bisection."""
    if not 0 < mean < longest:
        raise ValueError(f"the mean of lengths cut at {longest} must lie below it, found {mean}")

    def cut_mean(mu: float) -> float:
        z = (math.log(longest) - mu) / sigma
        below = math.exp(mu + sigma**2 / 2) * _normal(z - sigma)
        return below + longest * (1 - _normal(z))

    low, high = 0.0, math.log(longest) + 20 * sigma
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cut_mean(middle) < mean else (low, middle)
    return low


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def recorded(paths: Iterable[Path], tool_seconds: float | None = None) -> Iterator[Turns]:
    """The turns of recorded trajectories (`retool.trajectory/1`). Calls take `tool_seconds`, or as long as recorded,
    spread evenly over the calls."""
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield _turns(Trajectory.from_json(json.loads(line)), tool_seconds)


def _turns(trajectory: Trajectory, tool_seconds: float | None) -> Turns:
    turns, new = [], len(trajectory.prompt_ids or ())
    spans = trajectory.spans
    calls = max(1, sum(span.author is Author.INTERPRETER for span in spans))
    seconds = trajectory.timing.get("tool_seconds", 0.0) / calls if tool_seconds is None else tool_seconds
    for number, span in enumerate(spans):
        if span.author is Author.INTERPRETER:
            new = len(span.ids or ())
        else:
            turns.append(Turn(new, len(span.ids or ()), seconds if number + 1 < len(spans) else None))
    return tuple(turns)


def repeated(turns: Sequence[Turns], count: int, seed: int) -> list[Turns]:
    """`count` of them, drawn with replacement."""
    chosen = np.random.default_rng(seed).integers(0, len(turns), count)
    return [turns[index] for index in chosen]
