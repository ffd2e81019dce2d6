"""SIGTERM: what was learned is saved, everything is closed, and the run goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import assert_same, reinforce, small_config

from retool.learner.checkpoint import list_checkpoints, load_state
from retool.runs import RunFolder, read_rows
from retool.stages.progress import Progress
from retool.stages.training.stopping import Stopped, Stopping
from retool.stages.workbench import Workbench

CONFIG = small_config("threads=1", "rl.steps=4", "rl.save_every=10", "rl.eval_every=2")

Send = Callable[..., None]


@pytest.fixture(scope="module")
def undisturbed(cold: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return reinforce(CONFIG, cold, tmp_path_factory.mktemp("undisturbed") / "rl")


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """`send(step, evaluation)`: in the midst of that batch this process gets SIGTERM."""

    def prepare(step: int, evaluation: bool) -> None:
        roll_out, changed = Workbench.roll_out, Progress.rollout_changed
        changes_left: list[None] = []
        arms = {True: "ReTool/heldout", False: None}

        async def watched(self: Workbench, *args: Any, **options: Any) -> Any:
            if options["step"] == step and options.get("arm") == arms[evaluation]:
                changes_left.extend([None] * 10)
            return await roll_out(self, *args, **options)

        def counted(self: Progress, meter: Any) -> None:
            changed(self, meter)
            if changes_left:
                changes_left.pop()
                if not changes_left:
                    os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Workbench, "roll_out", watched)
        monkeypatch.setattr(Progress, "rollout_changed", counted)

    return prepare


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize(
    ("step", "evaluation", "saved"),
    [(4, False, 3), (2, True, 2), (0, True, None)],
)
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    step: int,
    evaluation: bool,
    saved: int | None,
    undisturbed: RunFolder,
    cold: Path,
    send: Send,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, before = RunFolder(tmp_path / "rl"), children()
    send(step, evaluation)
    with pytest.raises(Stopped, match=r"run the same command again") as stopped:
        reinforce(CONFIG, cold, run.path)
    monkeypatch.undo()
    assert stopped.value.exit_code == 143
    assert ("nothing new to save" if saved is None else f"step-{saved};") in str(stopped.value)
    assert [number for number, _ in list_checkpoints(run.checkpoints)][-1:] == ([] if saved is None else [saved])
    assert children() == before
    reinforce(CONFIG, cold, run.path)
    assert_same(run, undisturbed)


def test_a_step_that_was_being_evaluated_keeps_its_update(
    undisturbed: RunFolder, cold: Path, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(2, evaluation=True)
    with pytest.raises(Stopped, match=r"saved in .*step-2;"):
        reinforce(CONFIG, cold, tmp_path)
    monkeypatch.undo()
    run = RunFolder(tmp_path)
    assert [row["step"] for row in read_rows(run.metrics)] == [1]
    unfinished = load_state(run.checkpoints / "step-2")["unfinished"]
    assert unfinished["metrics"]["trained"] == 8 and "heldout_accuracy" not in unfinished["metrics"]
    update = (run.trajectories / "step-2.jsonl").stat().st_mtime_ns
    run.log(2, unfinished["metrics"] | {"heldout_accuracy": 0.0}, {})  # gone on, and killed before it was saved again
    reinforce(CONFIG, cold, tmp_path)
    assert_same(run, undisturbed)
    assert (run.trajectories / "step-2.jsonl").stat().st_mtime_ns == update


def test_a_second_one_ends_at_once() -> None:
    code = (
        "import signal; from retool.stages.training.stopping import Stopping\n"
        "with Stopping() as stop:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print(stop.requested, flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("True\n", -signal.SIGTERM)


def test_a_cancellation_that_is_not_sigterm_passes(cold: Path, tmp_path: Path) -> None:
    async def cancelled() -> None:
        with Stopping(asyncio.current_task()) as stop, stop.saving(lambda: pytest.fail("saved")):
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_what_was_there_before_is_there_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
