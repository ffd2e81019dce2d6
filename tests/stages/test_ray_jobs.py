"""`retool rl --cluster`: a run that goes on without the terminal, and without the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import OVERRIDES, reinforce, small_config

pytest.importorskip("ray", reason="Ray is not installed")

from ray.job_submission import JobSubmissionClient
from ray_cluster import assert_alike, assert_each_once, events, processes, steps, three_nodes, wait

from retool.runs import RunFolder
from retool.stages.cluster.launch import name_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUN = ("threads=1", "rl.steps=30", "rl.save_every=1", "rl.eval_every=0", "rl.prompts=8")
CLUSTER = ("cluster.samplers=2", "cluster.gpu=cpu")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the dashboard."""
    with three_nodes(include_dashboard=True) as cluster:
        yield f"http://{cluster.head_node.webui_url}"


def submit(cold: Path, out: Path, address: str) -> subprocess.Popen[str]:
    words = [*OVERRIDES, *RUN, *CLUSTER, "--model", str(cold), "--out", str(out), "--cluster", address]
    command = [sys.executable, "-m", "retool", "rl", "nano", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def driver(out: Path) -> int:
    """The process that the job has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "-m" in words[:2] and str(out / "job.yaml") in words:
            return int(path.name)
    raise AssertionError("there is none")


def test_a_job_outlives_its_terminal(address: str, cold: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "rl")
    terminal = submit(cold, run.path, address)
    wait(lambda: steps(run) >= 1)
    terminal.kill()
    terminal.communicate()
    said, _ = (again := submit(cold, run.path, address)).communicate()
    assert again.returncode == 0, said
    assert f"job {name_of(run.path)}-1 is under way" in said and "trained:" in said
    assert_alike(run, reinforce(small_config(*RUN), cold, tmp_path / "one"))
    assert not events(run)


def test_a_run_outlives_the_process_that_started_it(address: str, cold: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "rl")
    terminal = submit(cold, run.path, address)
    wait(lambda: steps(run) >= 1)
    learners = processes("LearnerActor")
    os.kill(driver(run.path), signal.SIGKILL)
    said, _ = terminal.communicate()
    assert terminal.returncode == 1, said
    before = steps(run)
    wait(lambda: steps(run) > before)
    said, _ = (again := submit(cold, run.path, address)).communicate()
    assert again.returncode == 0, said
    assert learners and not events(run)
    assert_each_once(run, small_config(*RUN))
    assert_alike(run, reinforce(small_config(*RUN), cold, tmp_path / "one"))


def test_a_job_that_is_stopped_saves_and_goes_on_when_it_is_submitted_again(
    address: str, cold: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "rl")
    terminal = submit(cold, run.path, address)
    wait(lambda: steps(run) >= 1)
    JobSubmissionClient(address).stop_job(f"{name_of(run.path)}-1")
    said, _ = terminal.communicate()
    assert terminal.returncode != 0
    wait(lambda: not processes("LearnerActor"))
    time.sleep(1)
    said, _ = (again := submit(cold, run.path, address)).communicate()
    assert again.returncode == 0, said
    assert_alike(run, reinforce(small_config(*RUN), cold, tmp_path / "one"))
