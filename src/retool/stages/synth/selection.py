"""The last word on traces: format, answer, and how many there are of a kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from retool.config.schema import Config
from retool.stages.synth.drawing import draw
from retool.stages.synth.row import Outcome, Row
from retool.stages.synth.stage import Work
from retool.traces import IsCorrect, Reason, Rejection, verify
from retool.traces.counts import calls, corrects_itself
from retool.types import Trace


def verification_work(is_correct: IsCorrect) -> Work:
    """Keeps the traces of a row that are well formed and right."""

    async def work(row: Row) -> Outcome:
        verified = [verify(trace, is_correct) for trace in row.traces]
        sound = tuple(trace for trace in verified if isinstance(trace, Trace))
        return replace(row, traces=sound) if sound else next(t for t in verified if isinstance(t, Rejection))

    return work


def balance(config: Config, rows: Sequence[Row]) -> list[Outcome]:
    """Keep to `synth.max_calls` and `synth.per_calls`. Traces that correct themselves are not counted in the latter."""
    limit, quota = config.synth.max_calls, config.synth.per_calls
    enough = _drawn_out(rows, quota, config.seed) if quota else set()
    outcomes: list[Outcome] = []
    for row in rows:
        short = tuple(trace for trace in row.traces if limit is None or calls(trace) <= limit)
        kept = tuple(trace for trace in short if id(trace) not in enough)
        if kept:
            outcomes.append(replace(row, traces=kept))
        elif short:
            outcomes.append(Rejection(Reason.OVER_QUOTA, f"{calls(short[0])} calls"))
        else:
            outcomes.append(Rejection(Reason.TOO_MANY_CALLS, f"{calls(row.traces[0])} calls, more than {limit}"))
    return outcomes


def _drawn_out(rows: Sequence[Row], quota: int, seed: int) -> set[int]:
    """The identities of the traces beyond the quota of their number of calls."""
    by_calls: dict[int, list[tuple[float, Trace]]] = defaultdict(list)
    for row in rows:
        for trace in row.traces:
            if not corrects_itself(trace):
                by_calls[calls(trace)].append((draw(seed, row.problem.id, "balance"), trace))
    ranked = (sorted(group, key=lambda drawn: drawn[0]) for group in by_calls.values())
    return {id(trace) for group in ranked for _, trace in group[quota:]}
