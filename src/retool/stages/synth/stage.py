"""One stage: rows in, rows out, what was dropped beside them, and a journal from which a stopped one goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from retool.data.jsonl import read_jsonl, write_jsonl
from retool.files import cannot_write
from retool.runs import read_rows
from retool.stages.progress import Progress
from retool.stages.synth.row import Dropped, Outcome, Row
from retool.traces import Reason, Rejection

ROWS_IN_FLIGHT = 64  # enough to keep any number of workers of one machine busy; the sandbox queues the rest

Work = Callable[[Row], Awaitable[Outcome]]
BatchWork = Callable[[Sequence[Row]], Awaitable[Sequence[Outcome]]]


@dataclass(frozen=True, slots=True)
class Result:
    """What a stage has made of its rows, in their order."""

    name: str
    kept: list[Row]
    dropped: list[Dropped]


class Stages:
    """The folder of the stages' files: `NAME.jsonl`, `NAME.dropped.jsonl`, and while it runs `NAME.journal.jsonl`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def finished(self, name: str) -> Result | None:
        """The result of a stage that has been finished; None if it has not."""
        kept, dropped = self._paths(name)
        if not kept.exists():
            return None
        return Result(
            name,
            [Row.from_json(row) for _, row in read_jsonl(kept)],
            [Dropped.from_json(row) for _, row in read_jsonl(dropped)],
        )

    def finish(self, name: str, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Result:
        """Write a stage's files from what became of each row."""
        result = Result(
            name,
            [outcome for outcome in outcomes if isinstance(outcome, Row)],
            [
                Dropped(row.problem, outcome)
                for row, outcome in zip(rows, outcomes, strict=True)
                if isinstance(outcome, Rejection)
            ],
        )
        kept, dropped = self._paths(name)
        write_jsonl(dropped, (each.to_json() for each in result.dropped))
        write_jsonl(kept, (row.to_json() for row in result.kept))  # by which the stage is finished
        self._journal(name).unlink(missing_ok=True)
        return result

    async def run(self, name: str, rows: Sequence[Row], work: Work, in_flight: int = ROWS_IN_FLIGHT) -> Result:
        """Do `work` on each row, several at a time, unless it has been done. See `run_batches`."""

        async def one(batch: Sequence[Row]) -> Sequence[Outcome]:
            return [await work(batch[0])]

        return await self.run_batches(name, rows, one, 1, in_flight)

    async def run_batches(
        self, name: str, rows: Sequence[Row], work: BatchWork, size: int, in_flight: int = 1
    ) -> Result:
        """Do `work` on each batch of rows that the journal does not have.

        An error in one batch is raised when those that have begun are done and on record, as they may have cost money;
        no other begins.
        """
        if result := self.finished(name):
            return result
        batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        done = dict(self._recorded(name))
        slots, failed = asyncio.Semaphore(in_flight), False
        path = self._journal(name)

        async def do(number: int, journal: TextIO, progress: Progress) -> None:
            nonlocal failed
            async with slots:
                if failed:
                    return
                try:
                    done[number] = list(await work(batches[number]))
                except Exception:
                    failed = True
                    raise
                _record(journal, path, number, done[number])
                progress.step_done()

        with (
            _opened(path) as journal,
            Progress(f"synthesis, {name}", len(batches), len(done)) as progress,
        ):
            missing = [number for number in range(len(batches)) if number not in done]
            ends = await asyncio.gather(*(do(number, journal, progress) for number in missing), return_exceptions=True)
            for error in ends:
                if isinstance(error, BaseException):
                    raise error
        return self.finish(name, rows, [outcome for number in range(len(batches)) for outcome in done[number]])

    def _recorded(self, name: str) -> Iterator[tuple[int, list[Outcome]]]:
        for row in read_rows(self._journal(name)):
            yield row["batch"], [_outcome(outcome) for outcome in row["outcomes"]]

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.jsonl", self._folder / f"{name}.dropped.jsonl"

    def _journal(self, name: str) -> Path:
        return self._folder / f"{name}.journal.jsonl"


def _opened(path: Path) -> TextIO:
    """The journal, to be appended to; a last line that a kill cut short is cut off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def _record(journal: TextIO, path: Path, number: int, outcomes: Sequence[Outcome]) -> None:
    rows = [
        {"reason": outcome.reason, "detail": outcome.detail} if isinstance(outcome, Rejection) else outcome.to_json()
        for outcome in outcomes
    ]
    try:
        journal.write(json.dumps({"batch": number, "outcomes": rows}) + "\n")
        journal.flush()
    except OSError as error:
        raise cannot_write(path, error) from error


def _outcome(row: dict[str, Any]) -> Outcome:
    return Rejection(Reason(row["reason"]), row["detail"]) if "reason" in row else Row.from_json(row)
