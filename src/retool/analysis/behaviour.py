"""The six behaviour metrics of ReTool (https://arxiv.org/abs/2504.11536, section 3.3, figure 3), and two more.

The paper names them; these are the definitions used here, over the responses of one set of problems:

- *response length*: mean number of tokens, by the model alone and in all (with the interpreter's).
- *code ratio*: share of responses with at least one executed call.
- *code lines*: mean over responses of the non-blank, non-comment lines in all their calls. No call is no line.
- *correct code count*: number of calls with status `ok` over the whole set.
- *code pass rate*: of the responses with an executed call, the share whose **last** call is `ok`; apart for those with
  a correct and those with an incorrect answer. A malformed last call is not `ok`.
- *invocation timing*: position of the first call's first token among all tokens of the response, 0-1, mean over
  responses with a call (a malformed one too: the model meant to call). In characters where a text has no ids.

Curves have beside them *accuracy* (share of correct responses) and *self-correction* (`retool.analysis.corrections`):
the share of the responses with a failed call that correct one, with and without a diagnosis, and of all responses.

Nothing here needs a tokenizer. Where a metric is undefined (no such response; lengths of text without ids) it is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan, nan
from typing import Any

import numpy as np

from retool.analysis.corrections import self_corrections
from retool.analysis.intervals import estimate, ratio
from retool.analysis.records import Response, summarize_response
from retool.errors import UsageError
from retool.types import Trajectory

_COUNT = "correct_code_count"  # a sum, where the others are ratios


def behaviour(responses: Sequence[Trajectory | Response]) -> dict[str, Any]:
    """The six metrics of a set of trajectories, or of what `observe` kept of them, as a JSON object."""
    names, numerators_TM, denominators_TM, _ = _parts_of(responses)
    ratios = ratio(numerators_TM.sum(axis=0), denominators_TM.sum(axis=0))
    values = {name: None if isnan(value) else float(value) for name, value in zip(names, ratios, strict=True)}
    return {
        "response_length": {part: values[f"response_length.{part}"] for part in ("model", "total")},
        "code_ratio": values["code_ratio"],
        "code_lines": values["code_lines"],
        _COUNT: round(values[_COUNT] * len(responses)),
        "code_pass_rate": {part: values[f"code_pass_rate.{part}"] for part in ("correct", "incorrect")},
        "invocation_timing": values["invocation_timing"],
    }


def curves(by_step: Mapping[int, Sequence[Trajectory | Response]], arm: str) -> list[dict[str, Any]]:
    """Each metric at each step of `arm` as tidy rows {arm, step, metric, value, low, high}, in order of step.

    `low` and `high` are a 95 % bootstrap interval over problems. The parts of a metric are joined to its name with a
    dot: `response_length.model`. The three may be None.
    """
    rows = []
    for step, responses in sorted(by_step.items()):
        names, *parts = _parts_of(responses)
        for name, found in zip(names, estimate(*parts), strict=True):
            if name == _COUNT:
                found = found.times(len(responses))
            rows.append({"arm": arm, "step": step, "metric": name, **asdict(found)})
    return rows


def _parts_of(given: Sequence[Trajectory | Response]) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """The names of the metrics, what each response adds to their numerators and denominators, and its problem."""
    if not given:
        raise UsageError("Found no trajectories to analyse, expected at least one: check that the file is not empty.")
    responses = [
        each if isinstance(each, Response) else summarize_response(each, self_corrections(each)) for each in given
    ]
    parts = [_parts(response) for response in responses]
    parts_TM2 = np.array([list(part.values()) for part in parts], dtype=float)
    return list(parts[0]), parts_TM2[..., 0], parts_TM2[..., 1], [response.problem for response in responses]


def _parts(r: Response) -> dict[str, tuple[float, float]]:
    """What a response adds to the numerator and the denominator of each metric."""
    total = nan if r.model_tokens is None else r.model_tokens + r.interpreter_tokens
    ran, passed = r.executed > 0, bool(r.last_call_ok)
    recovered, diagnosed = r.corrections > 0, r.diagnosed > 0
    return {
        "accuracy": (r.correct, 1),
        "response_length.model": (nan if r.model_tokens is None else r.model_tokens, 1),
        "response_length.total": (total, 1),
        "code_ratio": (ran, 1),
        "code_lines": (r.lines, 1),
        _COUNT: (r.ok, 1),
        "code_pass_rate.correct": (passed and r.correct, ran and r.correct),
        "code_pass_rate.incorrect": (passed and not r.correct, ran and not r.correct),
        "invocation_timing": (r.first_call_at or 0.0, r.first_call_at is not None),
        "self_correction.of_failed": (recovered, r.failed > 0),
        "self_correction.diagnosed": (diagnosed, r.failed > 0),
        "self_correction.of_all": (recovered, 1),
    }
