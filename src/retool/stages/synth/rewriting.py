"""From solutions to drafts with code: by rules, or by a teacher that keeps the reasoning and lets code calculate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retool.config.schema import Config
from retool.endpoint import Endpoint
from retool.stages.synth.asking import say
from retool.stages.synth.drawing import draw
from retool.stages.synth.row import Outcome, Row
from retool.stages.synth.stage import Work
from retool.traces import Draft, Execution, Rejection, has_tags, rewrite
from retool.traces.teacher import ask, ask_again, read_reply


def wants_code(config: Config, row: Row) -> bool:
    """Is the row drawn for the share of the traces that call code? What has calls already keeps them."""
    return has_tags(row.solution or "") or draw(config.seed, row.problem.id) < config.synth.code_share


def rules_work(config: Config) -> Work:
    """Rewrites by rules; rows that are not drawn for code pass as they are."""

    async def work(row: Row) -> Outcome:
        if not wants_code(config, row):
            return row
        draft = rewrite(row.problem, row.solution)
        return draft if isinstance(draft, Rejection) else replace(row, draft=draft)

    return work


def teacher_work(config: Config, teacher: Endpoint) -> Work:
    """Asks the teacher, and once more if the reply does not keep to the contract."""
    by_rules = rules_work(config)

    async def work(row: Row) -> Outcome:
        if not wants_code(config, row) or has_tags(row.solution):
            return await by_rules(row)
        reply = await say(teacher, ask(row.problem, row.solution))
        if isinstance(reply, Rejection):
            return reply
        draft = read_reply(row.problem, reply)
        if isinstance(draft, Rejection):
            return await ask_for_repair(teacher, row, reply, draft)
        return replace(row, draft=draft, reply=reply)

    return work


async def ask_for_repair(
    teacher: Endpoint, row: Row, reply: str, fault: Rejection, executions: Sequence[Execution] = ()
) -> Outcome:
    """The row with the teacher's second attempt, after it was told what is wrong with its `reply`."""
    again = await say(teacher, ask_again(row.problem, row.solution, reply, fault, executions))
    if isinstance(again, Rejection):
        return again
    draft = read_reply(row.problem, again)
    return replace(row, draft=draft, reply=again) if isinstance(draft, Draft) else draft
