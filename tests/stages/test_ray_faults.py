"""Parts of a run on a Ray cluster that die: it goes on, and ends as if they had not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_run import reinforce, small_config

pytest.importorskip("ray", reason="Ray is not installed")

from ray_cluster import (
    assert_alike,
    assert_counted,
    assert_each_once,
    events,
    processes,
    reinforce_on_ray,
    steps,
    three_nodes,
    wait,
)

from retool.runs import RunFolder

RL = ("threads=1", "rl.steps=8", "rl.save_every=1", "rl.eval_every=0", "rl.prompts=8")
CLUSTER = ("cluster.samplers=2", "cluster.gpu=cpu")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with three_nodes():
        yield


def kill(kind: str) -> None:
    wait(lambda: bool(processes(kind)))
    os.kill(processes(kind)[0], signal.SIGKILL)


def test_a_run_ends_as_if_nothing_had_died(cold: Path, tmp_path: Path) -> None:
    """A sampler, a sandbox, a learner and the controller, each after another step."""
    config, run = small_config(*RL, *CLUSTER), RunFolder(tmp_path / "rl")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(reinforce_on_ray, config, cold, run.path)
        for step, kind in enumerate(("SamplerActor", "SandboxActor", "LearnerActor", "Controller"), 1):
            wait(lambda step=step: steps(run) >= step or ended.done())
            kill(kind)
        ended.result()
    assert_each_once(run, config)
    happened = events(run)
    assert min(happened[name] for name in ("sampler_lost", "sandbox_lost", "learner_lost", "controller_lost")) >= 1
    assert_alike(run, reinforce(small_config(*RL), cold, tmp_path / "undisturbed"))
    assert_counted(run)
