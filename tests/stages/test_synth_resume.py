"""A synthesis that was stopped goes on with what is missing, and comes to the same bytes."""

import asyncio
import json
from pathlib import Path

import pytest

from retool.config.sandbox import SandboxConfig
from retool.config.schema import Config
from retool.config.synth import SynthConfig
from retool.errors import RetoolError, UsageError
from retool.puzzles.generate import generate
from retool.sandbox import Sandbox
from retool.stages.synth import synthesize
from retool.stages.synth.row import Row
from retool.stages.synth.stage import Stages

ROWS = generate(33, seed=3)


def run(out: Path, rows=ROWS, seed: int = 0, **settings: object) -> None:
    asyncio.run(synthesize(Config(seed=seed, synth=SynthConfig(**settings)), rows, out))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The snippets that have been run."""
    run_for_real, seen = Sandbox.run, []

    async def counting(self: Sandbox, code: str, *arguments: object, **more: object) -> object:
        seen.append(code)
        return await run_for_real(self, code, *arguments, **more)

    monkeypatch.setattr(Sandbox, "run", counting)
    return seen


def stop(out: Path, after: int, calls: list[str], how: str = "error") -> int:
    """Run until so many snippets have been run, up to an error or a Ctrl-C, which cancels; how many are on record."""
    counting = Sandbox.run

    async def stopping(self: Sandbox, code: str, *arguments: object, **more: object) -> object:
        if len(calls) == after:
            if how == "error":
                raise RetoolError("the disk is full")
            task.cancel()
        return await counting(self, code, *arguments, **more)

    async def main() -> None:
        nonlocal task
        task = asyncio.create_task(synthesize(Config(), ROWS, out))
        await task

    task: asyncio.Task | None = None
    error = RetoolError if how == "error" else asyncio.CancelledError
    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        patch.setattr(Sandbox, "run", stopping)
        asyncio.run(main())
    calls.clear()
    return len(journal(out).read_bytes().splitlines())


def journal(out: Path) -> Path:
    return out / "stages" / "4-executed.journal.jsonl"


@pytest.mark.parametrize("how", ["error", "cancelled"])
def test_rows_that_are_done_are_not_done_again(how: str, tmp_path: Path, calls: list[str]) -> None:
    recorded = stop(tmp_path / "stopped", 20, calls, how)
    assert recorded == 20 if how == "error" else recorded < 33
    run(tmp_path / "stopped")
    assert len(calls) == 33 - recorded
    run(tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_line_that_a_kill_cut_short_is_done_again_even_after_two_kills(tmp_path: Path, calls: list[str]) -> None:
    for _ in range(2):
        stop(tmp_path / "stopped", 8, calls)
        journal(tmp_path / "stopped").write_bytes(journal(tmp_path / "stopped").read_bytes()[:-30])
    run(tmp_path / "stopped")
    assert len(calls) == 33 - 2 * 7
    run(tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_after_an_error_no_other_row_begins(tmp_path: Path) -> None:
    begun: list[str] = []

    async def work(row: Row) -> Row:
        begun.append(row.problem.id)
        await asyncio.sleep(0)
        if row.problem == ROWS[2][0]:
            raise RetoolError("there is no money left")
        return row

    with pytest.raises(RetoolError):
        asyncio.run(Stages(tmp_path).run("stage", [Row(*row) for row in ROWS], work, in_flight=2))
    assert len(begun) <= 5


def test_a_finished_synthesis_runs_nothing_again(tmp_path, calls):
    run(tmp_path)
    before = contents(tmp_path)
    calls.clear()
    run(tmp_path)
    assert not calls and contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": ROWS[:-1]}, "another sources"),
        ({"seed": 1}, r"another seed \(0 there, 1 now\)"),
        ({"code_share": 0.5}, r"another synth.code_share \(1.0 there, 0.5 now\)"),
    ],
)
def test_a_folder_belongs_to_its_sources_and_settings(change, named, tmp_path):
    run(tmp_path)
    with pytest.raises(UsageError, match=named):
        run(tmp_path, **change)


def test_what_does_not_change_the_result_may_change(tmp_path):
    run(tmp_path)
    before = json.loads((tmp_path / "report.json").read_text("utf-8"))
    config = Config(sandbox=SandboxConfig(workers=1))
    asyncio.run(synthesize(config, ROWS, tmp_path))
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == before
