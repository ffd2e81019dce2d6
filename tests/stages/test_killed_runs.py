"""A run that is killed at any moment, again and again, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_run import OVERRIDES, assert_same, reinforce, small_config

from retool.runs import RunFolder

SETTINGS = ("threads=1", "rl.save_every=1", "rl.keep_states=1", "rl.keep_checkpoints=2")
PPO = ("rl.algorithm=ppo",)
DAPO = ("rl.algorithm=dapo", "rl.refill=1", "rl.reward=[outcome, overlong]")


def start(cold: Path, out: Path, *settings: str) -> subprocess.Popen[str]:
    words = [*OVERRIDES, *settings, f"model.path={cold}"]
    return subprocess.Popen(
        [sys.executable, "-m", "retool", "rl", "nano", *words, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> float:
    """The seconds until that holds."""
    began = time.monotonic()
    while not until():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - began < 120
        time.sleep(0.001)
    return time.monotonic() - began


def send(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """Send the signal; what the process has said when it has ended."""
    process.send_signal(how)
    return process.communicate()[1]


def finish(process: subprocess.Popen[str]) -> float:
    """The seconds until it has ended."""
    began = time.monotonic()
    _, said = process.communicate()
    assert process.returncode == 0, said
    return time.monotonic() - began


def steps_done(run: RunFolder) -> int:
    return len(run.metrics.read_bytes().splitlines()) if run.metrics.exists() else 0


def is_writing(run: RunFolder) -> bool:
    return any(run.checkpoints.glob(".step-*.writing"))


def test_a_run_that_is_killed_while_it_saves_goes_on(cold: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "killed")
    process = start(cold, run.path, *SETTINGS)
    wait(process, lambda: steps_done(run) == 2 and is_writing(run))
    send(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    config = small_config(*SETTINGS)
    assert_same(reinforce(config, cold, run.path), reinforce(config, cold, tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("algorithm", [PPO, DAPO], ids=["ppo", "dapo"])
def test_a_run_that_is_killed_ten_times_ends_as_if_it_had_not_been(
    algorithm: tuple[str, ...], cold: Path, tmp_path: Path
) -> None:
    """The moments: twice somewhere in the start, four times within a step's time after the rows of a step (the saving,
    rollout, update or evaluation that follow), and four times in the writing of a checkpoint; in any order."""
    settings = (*SETTINGS, *algorithm, "rl.steps=18", "rl.eval_every=3", "rl.save_every=2")
    undisturbed, run = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "killed")
    process = start(cold, undisturbed.path, *settings)
    start_seconds = wait(process, lambda: steps_done(undisturbed) > 0)
    step_seconds = finish(process) / 17
    rng, seen = np.random.default_rng(0), []
    for moment in rng.permutation(["start"] * 2 + ["step"] * 4 + ["saving"] * 4):
        before = steps_done(run)
        events: dict[str, tuple[Callable[[], bool], float]] = {
            "start": (lambda: True, start_seconds),
            "step": (lambda before=before: steps_done(run) > before, step_seconds),
            "saving": (lambda before=before: steps_done(run) > before and is_writing(run), 0.01),
        }
        until, longest = events[moment]
        process = start(cold, run.path, *settings)
        wait(process, until)
        time.sleep(rng.uniform(0, longest))
        send(process, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        seen.append((str(moment), steps_done(run), is_writing(run)))
    print(
        f"start {start_seconds:.1f} s, step {step_seconds:.2f} s; (moment, steps done, checkpoint half-written): {seen}"
    )
    finish(start(cold, run.path, *settings))
    assert_same(run, undisturbed)


@pytest.mark.slow
def test_a_run_that_gets_sigterm_says_how_to_go_on(cold: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "rl.save_every=10")
    run = RunFolder(tmp_path / "stopped")
    process = start(cold, run.path, *settings)
    wait(process, lambda: steps_done(run) == 1)
    message = send(process, signal.SIGTERM)
    assert process.returncode == 143
    assert message.strip().splitlines()[-1].startswith("retool: ended by SIGTERM, what was learned is saved in")
    assert "Traceback" not in message
    finish(start(cold, run.path, *settings))
    assert_same(run, reinforce(small_config(*settings), cold, tmp_path / "undisturbed"))
