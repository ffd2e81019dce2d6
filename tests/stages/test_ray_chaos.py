"""Each kind of part of a run on a Ray cluster is killed five times, and so are nodes, at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_run import small_config

pytest.importorskip("ray", reason="Ray is not installed")

from ray.cluster_utils import Cluster
from ray_cluster import (
    SETTINGS,
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

TIMES = 5
PARTS = {
    "SamplerActor": "sampler_lost",
    "SandboxActor": "sandbox_lost",
    "LearnerActor": "learner_lost",
    "Controller": "controller_lost",
}
NODE = "a node"
RL = ("threads=1", "rl.steps=40", "rl.save_every=1", "rl.keep_checkpoints=2", "rl.eval_every=0", "rl.prompts=8")
CLUSTER = ("cluster.learners=2", "cluster.samplers=2", "cluster.gpu=cpu")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with three_nodes() as nodes:
        yield nodes


def kill(what: str, cluster: Cluster, chance: random.Random) -> None:
    if what == NODE:
        lost = chance.choice([node for node in cluster.list_all_nodes() if node is not cluster.head_node])
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(**SETTINGS)
        return
    wait(lambda: bool(processes(what)))
    os.kill(chance.choice(processes(what)), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_whatever_dies_each_trajectory_is_counted_once(mode: str, cluster: Cluster, cold: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("RETOOL_CHAOS_SEED", "0"))
    chance = random.Random(seed)
    config = small_config(*RL, *CLUSTER, f"cluster.mode={mode}", "rollout.deterministic=false")
    run = RunFolder(tmp_path / "rl")
    order = [*PARTS, NODE] * TIMES
    chance.shuffle(order)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(reinforce_on_ray, config, cold, run.path)
        for number, what in enumerate(order, 1):
            wait(lambda number=number: steps(run) >= number or ended.done())
            time.sleep(chance.uniform(0, 2))
            assert not ended.done(), ended.result()
            if what == "Controller":  # one that is killed before it knows of the run says nothing of the one before
                before = order[: number - 1].count(what)
                wait(lambda before=before: events(run)[PARTS["Controller"]] >= before)
            print(f"seed {seed}, step {steps(run)}: {what} dies", flush=True)
            kill(what, cluster, chance)
        ended.result()
    assert_each_once(run, config)
    assert_counted(run)
    happened = events(run)
    print(dict(happened))
    assert all(happened[event] >= TIMES for event in PARTS.values())
    wait(lambda: not any(map(processes, PARTS)), seconds=60)
