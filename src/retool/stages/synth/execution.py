"""Every snippet is run, and what it really prints takes the place of what anybody expected."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from retool.config.schema import Config
from retool.endpoint import Endpoint
from retool.sandbox import Sandbox
from retool.stages.synth.rewriting import ask_for_repair
from retool.stages.synth.row import Outcome, Row
from retool.stages.synth.stage import Work
from retool.traces import Draft, Execution, Reason, Rejection, complete, text_trace
from retool.types import CallStatus, Trace


def execution_work(config: Config, sandbox: Sandbox, teacher: Endpoint | None) -> Work:
    """Runs drafts; one of the teacher's whose text does not fit what was printed is asked for once more. Rows without a
    draft get the trace that their text is, and what was harvested has been run."""

    async def work(row: Row) -> Outcome:
        if row.traces:
            return row
        if row.draft is None:
            text = text_trace(row.problem, row.solution)
            return text if isinstance(text, Rejection) else replace(row, traces=(text,))
        executions = await execute(config, sandbox, row.draft)
        trace = complete(row.draft, executions)
        if isinstance(trace, Trace):
            return replace(row, traces=(trace,))
        if teacher is None or row.reply is None or trace.reason is Reason.SANDBOX_FAILED:
            return trace
        repaired = await ask_for_repair(teacher, row, row.reply, trace, executions)
        if isinstance(repaired, Rejection):
            return repaired
        trace = complete(repaired.draft, await execute(config, sandbox, repaired.draft))
        return trace if isinstance(trace, Rejection) else replace(repaired, traces=(trace,))

    return work


async def execute(config: Config, sandbox: Sandbox, draft: Draft) -> list[Execution]:
    """Run the snippets of `draft` one after the other, with the state and the echo that a rollout would have. Where no
    failure can be corrected, the first one ends it."""
    executions: list[Execution] = []
    key = (config.seed, draft.problem.id)
    with sandbox.session(key) if config.rollout.stateful else nullcontext() as session:
        for index, snippet in enumerate(draft.snippets):
            if session:
                result = await session.run(snippet, echo=config.rollout.echo)
            else:
                result = await sandbox.run(snippet, key=(*key, index), echo=config.rollout.echo)
            executions.append(Execution(result.status, result.text))
            if result.status is not CallStatus.OK and not draft.imagined:
                break
    return executions
