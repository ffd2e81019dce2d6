"""Runs on a Ray cluster: what one process does, several do, also where some of them die."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
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
    wait,
)

from retool.runs import RunFolder, read_rows
from retool.types import Author

RL = ("threads=1", "rl.steps=3", "rl.eval_every=3", "rl.eval_problems=3", "rl.save_every=1")
LONGER = ("threads=1", "rl.steps=6", "rl.save_every=1", "rl.eval_every=0", "rl.prompts=8")
CLUSTER = ("cluster.samplers=2", "cluster.gpu=cpu")


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def one(cold: Path, tmp_path_factory: pytest.TempPathFactory):
    return reinforce(small_config(*RL), cold, tmp_path_factory.mktemp("one") / "rl")


def test_in_sync_a_run_on_ray_is_the_run_of_one_process(one, cold: Path, tmp_path: Path) -> None:
    config = small_config(*RL, *CLUSTER)
    run = reinforce_on_ray(config, cold, tmp_path / "rl")
    assert_alike(run, one)
    assert not events(run)
    rows = list(read_rows(run.samplers))
    rollouts = [row for row in rows if row["did"] == "rollout"]
    shares = Counter((row["step"], row["sampler"]) for row in rollouts)
    for step in (2, 3):  # on a busy machine the second sampler starts late, or after the last of them
        before = min(row["began"] for row in rollouts if row["step"] == step - 1)
        there = {row["sampler"] for row in rows if row["did"] == "weights" and row["ended"] < before}
        assert len(there) < 2 or shares[step, 0] == shares[step, 1] == config.rl.prompts / 2


@pytest.mark.slow  # what two learn is compared without Ray too, in test_two_process_runs
def test_a_gang_of_two_learners_learns_as_one_process(one, cold: Path, tmp_path: Path) -> None:
    config = small_config(
        *RL, *CLUSTER, "cluster.learners=2", "cluster.weights=files", f"sampler.weights_folder={tmp_path}"
    )
    run = reinforce_on_ray(config, cold, tmp_path / "rl")
    assert_alike(run, one)


@pytest.mark.parametrize("mode", [pytest.param("one_step_off", marks=pytest.mark.slow), "async"])
def test_what_is_learned_from_is_never_older_than_the_bound(mode: str, cold: Path, tmp_path: Path) -> None:
    config = small_config(*RL, *CLUSTER, f"cluster.mode={mode}", "rl.steps=6", "rollout.deterministic=false")
    began = time.time()
    run = reinforce_on_ray(config, cold, tmp_path / "rl")
    assert_each_once(run, config)
    work = list(read_rows(run.samplers))
    assert all(began <= row["began"] + 0.001 and row["began"] <= row["ended"] <= time.time() + 0.001 for row in work)
    rolled_out = Counter(row["group"] for row in work if row["did"] == "rollout")
    assert len(rolled_out) == 6 * config.rl.prompts and set(rolled_out.values()) == {1}
    assert Counter(row["step"] for row in work if row["did"] == "evaluation") == {0: 3, 3: 3, 6: 3}
    assert {row["version"] for row in work if row["did"] == "weights" and not row["lost"]} >= {0, 6}
    assert not any(row["lost"] for row in work if row["did"] != "weights")  # which the end of a run may cut off
    for step, trajectories in run.read_trajectories().items():
        written = [span for each in trajectories for span in each.spans if span.author is Author.MODEL]
        ages = [step - 1 - version for span in written for version in span.versions()]
        assert min(ages) >= 0 and max(ages) <= config.cluster.versions_behind


def kill(kind: str) -> None:
    wait(lambda: bool(processes(kind)))
    os.kill(processes(kind)[0], signal.SIGKILL)


def test_a_run_ends_as_if_nothing_had_died(cold: Path, tmp_path: Path) -> None:
    """A sampler, a sandbox, a learner and the controller, each after another step."""
    config, run = small_config(*LONGER, *CLUSTER), RunFolder(tmp_path / "rl")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(reinforce_on_ray, config, cold, run.path)
        for step, kind in enumerate(("SamplerActor", "SandboxActor", "LearnerActor", "Controller"), 1):
            wait(lambda step=step: steps(run) >= step or ended.done())
            kill(kind)
        ended.result()
    assert_each_once(run, config)
    happened = events(run)
    assert min(happened[name] for name in ("sampler_lost", "sandbox_lost", "learner_lost", "controller_lost")) >= 1
    assert_alike(run, reinforce(small_config(*LONGER), cold, tmp_path / "undisturbed"))
    assert_counted(run)
