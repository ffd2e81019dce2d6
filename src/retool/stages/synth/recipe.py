"""The whole of a synthesis, top to bottom."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from retool.config.endpoint import EndpointConfig
from retool.config.schema import Config
from retool.data.jsonl import write_jsonl
from retool.data.load import LoadReport
from retool.endpoint import Endpoint
from retool.errors import RetoolError, UsageError
from retool.files import publish
from retool.grading import Grader, extract_answer
from retool.sandbox import Sandbox
from retool.stages.sources import Worked
from retool.stages.synth.execution import execution_work
from retool.stages.synth.filtering import decontaminate, filter_work, review, text_twin
from retool.stages.synth.folder import open_folder
from retool.stages.synth.rewriting import rules_work, teacher_work
from retool.stages.synth.row import Row
from retool.stages.synth.selection import balance, verification_work
from retool.stages.synth.stage import ROWS_IN_FLIGHT, Result, Stages
from retool.traces import IsCorrect
from retool.traces.report import SynthReport, data_card
from retool.types import Trace


async def synthesize(
    config: Config, rows: Sequence[Worked], out_dir: Path, loaded: LoadReport | None = None
) -> SynthReport:
    """Make traces of `rows`, problems with their worked solutions, and write them to `out_dir`.

    `config.synth.code_share` of the problems, drawn by their ids and the seed, get traces with code; the others stay
    text. Written are `traces.jsonl`, `text_traces.jsonl` (the same problems, all as text, where their solutions are
    sound without code: the text-only arm), `report.json`, `README.md` and the rows of every stage in `stages/`. The
    same seed and rows give the same bytes, whether it is done at once or goes on where it was stopped. `loaded` says
    what was dropped before.

    Raises UsageError if there is nothing to rewrite or the folder holds something else, RetoolError if no trace was
    accepted, if an endpoint cannot go on, or while people have solutions to review.
    """
    settings = config.synth
    if settings.rewrite != "harvest" and not any(solution for _, solution in rows):
        raise UsageError(
            f"none of the {len(rows)} rows has a worked solution to rewrite: name its column with the mapping "
            "(`solution=…`), or take synth.rewrite=harvest"
        )
    if not rows:
        raise UsageError("there are no problems to solve")
    open_folder(config, rows, out_dir)
    stages = Stages(out_dir / "stages")
    with Grader() as grader:
        is_correct = _checker(grader)
        results = await _run_stages(config, stages, [Row(*row) for row in rows], is_correct, out_dir)
        last = results[-1]
        traces = [trace for row in last.kept for trace in row.traces]
        twins = [twin for row in last.kept if isinstance(twin := text_twin(row, is_correct), Trace)]
    report = SynthReport(config.seed, settings.rewrite, settings.code_share)
    if loaded:
        report.add_loading(loaded.duplicates, loaded.conflicts, loaded.incomplete, loaded.incomplete_examples)
    report.add_sources([problem for problem, _ in rows])
    for result in results:
        report.add_stage(result.name, len(result.kept), [(each.problem, each.rejection) for each in result.dropped])
    report.add_traces(traces, twins)
    if not traces:
        raise RetoolError(f"no trace was accepted of {report.sources} solutions; {report.commonest_rejection()}")
    write_jsonl(out_dir / "traces.jsonl", (trace.to_json() for trace in traces))
    write_jsonl(out_dir / "text_traces.jsonl", (trace.to_json() for trace in twins))
    # Half a surrogate pair, which UTF-8 cannot hold, becomes the escape by which JSON writes that same character.
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n"
    publish(out_dir / "report.json", text.encode(errors="backslashreplace"))
    publish(out_dir / "README.md", data_card(report).encode(errors="backslashreplace"))
    return report


async def _run_stages(
    config: Config, stages: Stages, rows: list[Row], is_correct: IsCorrect, out: Path
) -> list[Result]:
    """All stages in order; each is skipped if its files are there."""
    settings = config.synth
    results = [
        stages.finished("1-sources")
        or stages.finish("1-sources", rows, decontaminate(rows, settings.decontaminate, settings.ngram))
    ]
    async with AsyncExitStack() as opened:

        async def endpoint(config: EndpointConfig | None) -> Endpoint | None:
            return await opened.enter_async_context(Endpoint(config, out / "replies")) if config else None

        judge, teacher = await endpoint(settings.judge), await endpoint(settings.teacher)
        by_harvest = settings.rewrite == "harvest"
        work = filter_work(is_correct, by_harvest, judge)
        results.append(await stages.run("2-filtered", results[-1].kept, work, _in_flight(settings.judge)))
        if settings.review:
            rows = results[-1].kept
            results.append(
                stages.finished("2-reviewed")
                or stages.finish("2-reviewed", rows, review(rows, settings.review, config.seed, out / "review.md"))
            )
        results.append(await _rewrite(config, stages, results[-1].kept, teacher))
        sandbox = Sandbox(config.sandbox)
        if stages.finished("4-executed") is None:
            await opened.enter_async_context(sandbox)
        work = execution_work(config, sandbox, teacher)
        results.append(await stages.run("4-executed", results[-1].kept, work, _in_flight(settings.teacher)))
    results.append(await stages.run("5-verified", results[-1].kept, verification_work(is_correct)))
    rows = results[-1].kept
    results.append(stages.finished("5-balanced") or stages.finish("5-balanced", rows, balance(config, rows)))
    return results


async def _rewrite(config: Config, stages: Stages, rows: list[Row], teacher: Endpoint | None) -> Result:
    name, rewriter = "3-rewritten", config.synth.rewrite
    if (result := stages.finished(name)) or not rows:
        return result or stages.finish(name, [], [])
    if rewriter == "harvest":
        from retool.stages.synth.harvesting import BATCH, harvest_work  # needs torch, and the others do not

        async with harvest_work(config, rows) as work:
            return await stages.run_batches(name, rows, work, BATCH)
    if rewriter == "teacher":
        return await stages.run(name, rows, teacher_work(config, teacher), _in_flight(config.synth.teacher))
    return await stages.run(name, rows, rules_work(config))


def _in_flight(endpoint: EndpointConfig | None) -> int:
    return max(ROWS_IN_FLIGHT, endpoint.concurrency if endpoint else 0)


def _checker(grader: Grader) -> IsCorrect:
    """Reads the answer from a model's texts and grades it; stages ask the same more than once."""
    grade = functools.lru_cache(maxsize=1 << 16)(grader.grade)

    def is_correct(texts: list[str], reference: str) -> bool:
        answer = extract_answer(texts)
        return answer is not None and grade(answer, reference)

    return is_correct
