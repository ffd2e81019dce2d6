"""The six behaviour metrics of ReTool (https://arxiv.org/abs/2504.11536, section 3.3, figure 3).

The paper names them; these are the definitions used here, over the responses of one set of problems:

- *response length*: mean number of tokens, by the model alone and in all (with the interpreter's).
- *code ratio*: share of responses with at least one executed call.
- *code lines*: mean over responses of the non-blank, non-comment lines in all their calls. No call is no line.
- *correct code count*: number of calls with status `ok` over the whole set.
- *code pass rate*: of the responses with an executed call, the share whose **last** call is `ok`; apart for those with
  a correct and those with an incorrect answer. A malformed last call is not `ok`.
- *invocation timing*: position of the first call's first token among all tokens of the response, 0-1, mean over
  responses with a call (a malformed one too: the model meant to call).

Nothing here needs a tokenizer. Where a metric is undefined (no such response; lengths of text without ids) it is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retool.errors import UsageError
from retool.types import Author, CallStatus, Trajectory


def behaviour(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """The six metrics of a set of trajectories, as a JSON object (see the top of this file)."""
    if not trajectories:
        raise UsageError("Found no trajectories to analyse, expected at least one: check that the file is not empty.")
    with_code = [t for t in trajectories if t.executed]
    counted = all(_has_ids(t) for t in trajectories)
    return {
        "response_length": {
            "model": _mean([t.tokens(Author.MODEL) for t in trajectories]) if counted else None,
            "total": _mean([t.tokens() for t in trajectories]) if counted else None,
        },
        "code_ratio": len(with_code) / len(trajectories),
        "code_lines": _mean([sum(code_lines(call.code) for call in t.calls) for t in trajectories]),
        "correct_code_count": sum(call.status is CallStatus.OK for t in trajectories for call in t.calls),
        "code_pass_rate": {
            "correct": _mean([last_call_ok(t) for t in with_code if t.correct]),
            "incorrect": _mean([last_call_ok(t) for t in with_code if not t.correct]),
        },
        "invocation_timing": _mean([t.calls[0].start / t.tokens() for t in trajectories if t.calls])
        if counted
        else None,
    }


def curves(by_step: Mapping[int, Sequence[Trajectory]], arm: str) -> list[dict[str, Any]]:
    """The metrics of each step of `arm` as tidy rows {arm, step, metric, value}, in order of step.

    The parts of a metric are joined to its name with a dot: `response_length.model`. A value may be None.
    """
    rows = []
    for step, trajectories in sorted(by_step.items()):
        for name, value in behaviour(trajectories).items():
            parts = {f"{name}.{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
            rows += [{"arm": arm, "step": step, "metric": metric, "value": v} for metric, v in parts.items()]
    return rows


def code_lines(code: str) -> int:
    """Number of lines that are neither blank nor only a comment."""
    lines = (line.strip() for line in code.split("\n"))
    return sum(1 for line in lines if line and not line.startswith("#"))


def last_call_ok(trajectory: Trajectory) -> bool:
    return trajectory.calls[-1].status is CallStatus.OK


def _has_ids(trajectory: Trajectory) -> bool:
    return all(span.ids is not None for span in trajectory.spans)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
