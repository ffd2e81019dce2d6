"""Which sources are worth rewriting: by their own answer, a judge's verdict, and what people say."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from retool.data.contamination import EvaluationProblems
from retool.data.load import load_problems
from retool.endpoint import Endpoint
from retool.errors import RetoolError, UsageError
from retool.files import publish
from retool.stages.synth.asking import say
from retool.stages.synth.drawing import draw
from retool.stages.synth.row import Outcome, Row
from retool.stages.synth.stage import Work
from retool.traces import IsCorrect, Reason, Rejection, has_tags, read_tagged, text_trace, verify
from retool.traces.judge import ask_judge, read_verdict
from retool.traces.review import read_review, write_review
from retool.types import Kind, Trace


def decontaminate(rows: Sequence[Row], sets: Sequence[str], ngram: int) -> list[Outcome]:
    """Drop what is a problem of the evaluation `sets` (names or files), and say which one it is."""
    if not sets:
        return list(rows)
    held_out = EvaluationProblems([problem for name in sets for problem in load_problems(name).problems], ngram)
    outcomes: list[Outcome] = []
    for row in rows:
        match = held_out.match(row.problem)
        if match is None:
            outcomes.append(row)
            continue
        where = f"{match.problem.source}/{match.problem.id}"
        outcomes.append(Rejection(Reason.CONTAMINATED, f"{match.shared}: shared with {where}, {match.problem.text!r}"))
    return outcomes


def filter_work(is_correct: IsCorrect, harvest: bool, judge: Endpoint | None) -> Work:
    """Checks the answer that a solution itself comes to, then asks the judge. Solutions do not matter to a harvest."""

    async def work(row: Row) -> Outcome:
        fault = None if harvest else answer_fault(row, is_correct)
        if fault is None and judge is not None and row.solution:
            fault = await _verdict(judge, row)
        return fault or row

    return work


def answer_fault(row: Row, is_correct: IsCorrect) -> Rejection | None:
    """Why the solution, as it is, does not end in the reference answer; None if it does."""
    if row.solution and has_tags(row.solution):
        draft = read_tagged(row.problem, row.solution)
        if isinstance(draft, Rejection):
            return draft
        words = [segment.text for segment in draft.segments if segment.kind is Kind.TEXT]
        if is_correct(words, row.problem.answer):
            return None
        return Rejection(Reason.WRONG_ANSWER, f"reference {row.problem.answer!r}; it ends {row.solution[-120:]!r}")
    twin = text_twin(row, is_correct)
    return twin if isinstance(twin, Rejection) else None


def text_twin(row: Row, is_correct: IsCorrect) -> Trace | Rejection:
    """The verified trace of a row's solution without any code."""
    trace = text_trace(row.problem, row.solution)
    return trace if isinstance(trace, Rejection) else verify(trace, is_correct)


async def _verdict(judge: Endpoint, row: Row) -> Rejection | None:
    verdict = None
    for attempt in range(2):
        reply = await say(judge, ask_judge(row.problem, row.solution), attempt)
        if isinstance(reply, Rejection):
            return reply
        verdict = read_verdict(reply)
        if verdict is None or verdict.reason is not Reason.UNREADABLE_VERDICT:
            return verdict
    return verdict


def review(rows: Sequence[Row], share: float, seed: int, path: Path) -> list[Outcome]:
    """What people make of a share of the rows, drawn by their ids. The first time, this writes the file at `path`.

    Raises RetoolError until every solution in it is marked, and UsageError if it cannot be read.
    """
    drawn = [row for row in rows if draw(seed, row.problem.id, "review") < share]
    ids = [row.problem.id for row in drawn]
    verdicts: dict[str, str | None] = {}
    if drawn:
        with contextlib.suppress(FileNotFoundError):
            verdicts = read_review(_read(path), ids, str(path))
        if not path.exists():
            publish(path, write_review([(row.problem, row.solution or "") for row in drawn]).encode(errors="replace"))
    if missing := len(ids) - len(verdicts):
        raise RetoolError(
            f"{missing} of {len(ids)} solutions in {path} wait to be accepted or rejected by a person; mark them and "
            "run the same command again"
        )
    return [
        row
        if verdicts.get(row.problem.id) is None
        else Rejection(Reason.REJECTED_IN_REVIEW, verdicts[row.problem.id] or "no reason given")
        for row in rows
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no longer UTF-8 text: {error}") from error
