"""Cold-start traces: worked solutions in, verified code traces out (ReTool §2.2, by rules instead of a teacher).

Rewrite manual work into code, run every snippet in the sandbox, write the real outputs in, check format and answer,
and say what was rejected and why. In the paper the rewriting model wrote the outputs itself; here nothing but the
sandbox does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retool.config.schema import Config
from retool.data.jsonl import write_jsonl
from retool.errors import RetoolError, UsageError
from retool.files import publish
from retool.grading import Grader, extract_answer
from retool.sandbox import Sandbox
from retool.traces import Draft, Execution, Rejection, complete, rewrite, text_trace, verify
from retool.traces.report import SynthReport, data_card
from retool.types import CallStatus, Problem, Trace

ROWS_IN_FLIGHT = 64  # enough to keep any number of workers of one machine busy; the sandbox queues the rest


async def synthesize(config: Config, rows: Sequence[tuple[Problem, str | None]], out_dir: Path) -> SynthReport:
    """Make traces of `rows`, problems with their worked solutions, and write them to `out_dir`.

    `config.synth.code_share` of the problems, drawn by their ids and the seed, get traces with code; the others stay
    text. Written are `traces.jsonl`, `text_traces.jsonl` (the same problems, all as text: the text-only arm),
    `report.json` and `README.md`; the same seed and rows give the same bytes.

    Raises UsageError if there is nothing to rewrite, RetoolError if no trace was accepted.
    """
    if not any(solution for _, solution in rows):
        raise UsageError(
            f"none of the {len(rows)} rows has a worked solution to rewrite: name its column with the mapping "
            "(`solution=…`)"
        )
    report = SynthReport(config.seed, config.synth.code_share)
    traces: list[Trace] = []
    texts: list[Trace] = []
    for (problem, _), outcome in zip(rows, await _outcomes(config, rows), strict=True):
        if isinstance(outcome, Rejection):
            report.add(problem, outcome)
            continue
        trace, text = outcome
        report.add(problem, trace)
        traces.append(trace)
        texts.append(text)
    if not traces:
        reason, count = report.rejected.most_common(1)[0]
        example = report.examples[reason][0]
        raise RetoolError(
            f"no trace was accepted of {report.sources} solutions; {count} were rejected because {reason.meaning}, "
            f"such as {example['id']}: {example['detail']}"
        )
    write_jsonl(out_dir / "traces.jsonl", (trace.to_json() for trace in traces))
    write_jsonl(out_dir / "text_traces.jsonl", (trace.to_json() for trace in texts))
    publish(out_dir / "report.json", json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    publish(out_dir / "README.md", data_card(report))
    return report


IsCorrect = Callable[[list[str], str], bool]
Outcome = tuple[Trace, Trace] | Rejection  # the trace of the mixed set and its twin in text, or why there is none


async def _outcomes(config: Config, rows: Sequence[tuple[Problem, str | None]]) -> list[Outcome]:
    """What became of each row, in order."""
    slots = asyncio.Semaphore(ROWS_IN_FLIGHT)

    def is_correct(texts: list[str], reference: str) -> bool:
        answer = extract_answer(texts)
        return answer is not None and grader.grade(answer, reference)

    async def outcome(problem: Problem, solution: str | None) -> Outcome:
        async with slots:
            result = await _trace(config, problem, solution, sandbox, is_correct)
        progress.advance(task)
        return result

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Grader() as grader, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("rewriting solutions", total=len(rows))
        async with Sandbox(config.sandbox) as sandbox:
            return await asyncio.gather(*(outcome(problem, solution) for problem, solution in rows))


async def _trace(
    config: Config, problem: Problem, solution: str | None, sandbox: Sandbox, is_correct: IsCorrect
) -> Outcome:
    """Rewrite, run, verify. The text-only arm is to have the same problems, so the twin in text must stand as well."""
    with_code = _draw(config.seed, problem.id) < config.synth.code_share
    draft = rewrite(problem, solution) if with_code else None
    if isinstance(draft, Rejection):
        return draft
    text = text_trace(problem, solution)
    if isinstance(text, Trace):
        text = verify(text, is_correct)
    if isinstance(text, Rejection):
        return text
    if draft is None:
        return text, text
    trace = complete(draft, await _execute(sandbox, draft, config.seed))
    if isinstance(trace, Trace):
        trace = verify(trace, is_correct)
    return trace if isinstance(trace, Rejection) else (trace, text)


async def _execute(sandbox: Sandbox, draft: Draft, seed: int) -> list[Execution]:
    """Run the snippets of `draft` one after the other, up to the first that fails."""
    executions: list[Execution] = []
    for index, snippet in enumerate(draft.snippets):
        result = await sandbox.run(snippet, key=(seed, draft.problem.id, index))
        executions.append(Execution(result.status, result.text))
        if result.status is not CallStatus.OK:
            break
    return executions


def _draw(seed: int, problem_id: str) -> float:
    """A number in [0, 1) that depends on the seed and the problem alone, not on the rows beside it."""
    digest = hashlib.blake2b(f"{seed}/{problem_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
