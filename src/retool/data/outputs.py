"""Answers of another system, from a JSONL file of texts, as trajectories that can be graded and analysed.

A row has `problem`, `answer` (a text or a number) and `output`: a text, or a list of texts, which are samples of one
problem. It may have `id`, of the problem (rows with the same one are samples of the same problem; without, they are if
they have the same text), `source`, `model`, and `finish_reason`, one or a list of them as long as `output`: `length`
marks what was cut short, which a text does not always show.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retool.data.jsonl import read_jsonl
from retool.data.transcripts import read_transcript
from retool.errors import UsageError
from retool.types import Problem, StopReason, Trajectory

_EXPECTED = "expected rows with `problem`, `answer` and `output` (a text or a list of texts)"


def read_outputs(path: str | Path) -> list[Trajectory]:
    """The responses of a file, in its order, ungraded: without ids, `token_exact` False, with the calls that are found
    in their texts (`retool.data.transcripts`). Raises UsageError naming the line of a row that is none."""
    name = Path(path).stem
    problems: dict[str, Problem] = {}
    samples: Counter[str] = Counter()
    found: list[Trajectory] = []
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        problem = _problem(row, name, where)
        if problems.setdefault(problem.id, problem) != problem:
            raise UsageError(
                f"{where} has the id of another problem, or another answer to the same one ({problem.id!r}); samples "
                "of a problem need the same text and the same answer, different problems need different ids"
            )
        for output, reason in _responses(row, where):
            found.append(_trajectory(problem, samples[problem.id], output, reason, str(row.get("model") or name)))
            samples[problem.id] += 1
    if not found:
        raise UsageError(f"{path} holds no responses; {_EXPECTED}")
    return found


def _problem(row: Mapping[str, Any], source: str, where: str) -> Problem:
    text = row.get("problem")
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{where} has no text as its problem, found {text!r:.80}; {_EXPECTED}")
    answer = row.get("answer")
    is_one = isinstance(answer, str | int | float) and not isinstance(answer, bool) and str(answer).strip()
    if not is_one or (isinstance(answer, float) and not math.isfinite(answer)):
        raise UsageError(f"{where} has no text and no number as its answer, found {answer!r:.80}; {_EXPECTED}")
    identity = row.get("id")
    if identity is None:
        identity = hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=6).hexdigest()
    return Problem(str(identity), text, str(answer).strip(), str(row.get("source") or source))


def _responses(row: Mapping[str, Any], where: str) -> list[tuple[str, str | None]]:
    """The outputs of a row, each with its finish reason if there is one."""
    outputs = row.get("output")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not all(isinstance(output, str) for output in outputs):
        raise UsageError(f"{where} has no text and no list of texts as its output, found {row.get('output')!r:.80}")
    reasons = row.get("finish_reason")
    reasons = reasons if isinstance(reasons, list) else [reasons] * len(outputs)
    if len(reasons) != len(outputs):
        raise UsageError(f"{where} has {len(outputs)} outputs and {len(reasons)} finish reasons, expected one for each")
    return list(zip(outputs, reasons, strict=True))


def _trajectory(problem: Problem, sample: int, output: str, reason: str | None, model: str) -> Trajectory:
    transcript = read_transcript(output)
    group = f"outputs/0/{problem.id}"
    return Trajectory(
        id=f"{group}/{sample}",
        step=0,
        arm="outputs",
        seed=0,
        sample=sample,
        group=group,
        model=model,
        protocol=transcript.convention,
        problem=problem,
        prompt_ids=None,
        spans=transcript.spans,
        calls=transcript.calls,
        stop=StopReason.TOKENS if transcript.cut or reason == "length" else StopReason.EOS,
        token_exact=False,
    )
