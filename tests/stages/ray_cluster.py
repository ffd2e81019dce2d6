"""A Ray cluster of three nodes on this machine, and runs on it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from retool.config.schema import Config
from retool.runs import EVENTS, RunFolder, read_rows
from retool.stages.cluster.launch import run_on_cluster
from retool.stages.sources import load_split
from retool.types import Trajectory

SETTINGS = {"num_cpus": 2, "object_store_memory": 80 << 20}  # of a node; the memory in bytes


@contextmanager
def three_nodes(gpus: int = 0, **head: Any) -> Iterator[Cluster]:
    """This process is connected to it. So many of the nodes have a GPU by name."""
    own = [SETTINGS | {"num_gpus": int(number < gpus)} for number in range(3)]
    cluster = Cluster(initialize_head=True, head_node_args=own[0] | head)
    try:
        for each in own[1:]:
            cluster.add_node(**each)
        ray.init(address=cluster.address, namespace="retool", logging_level="error", log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def reinforce_on_ray(config: Config, cold: Path, out: Path) -> RunFolder:
    """RL from a checkpoint, on the cluster that this process is connected to."""
    rows, heldout = load_split(config)
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(cold)})})
    run_on_cluster(config, [problem for problem, _ in rows], heldout, out, "ReTool")
    return RunFolder(out)


def events(run: RunFolder) -> Counter[str]:
    """How often what has happened."""
    path = run.path / "events.jsonl"
    return Counter(json.loads(line)["event"] for line in path.read_text().splitlines()) if path.exists() else Counter()


def assert_each_once(run: RunFolder, config: Config) -> None:
    """Each step has learned from all of its trajectories, each of them once."""
    found = run.read_trajectories()
    assert sorted(found) == list(range(1, config.rl.steps + 1))
    for trajectories in found.values():
        assert len({trajectory.id for trajectory in trajectories}) == len(trajectories)
        assert len(trajectories) == config.rl.prompts * config.rl.samples


def assert_counted(run: RunFolder) -> None:
    """The rows count each event once, but for those that came after the last one."""
    counted = Counter()
    for row in read_rows(run.metrics):
        counted.update({name.removeprefix(EVENTS): n for name, n in row.items() if name.startswith(EVENTS)})
    assert counted == events(run) - Counter(run.new_events())


def steps(run: RunFolder) -> int:
    """How many are done."""
    return len(list(read_rows(run.metrics)))


def processes(kind: str) -> list[int]:
    """Process ids of the actors of a class, of clusters that this process has started."""
    return running(lambda words: words[0].startswith(f"ray::{kind}"))


def running(is_meant: Callable[[list[str]], bool]) -> list[int]:
    """Process ids of what this process, or one of its children, has started with such words."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if is_meant((path / "cmdline").read_text().split("\0")) and _descends(int(path.name)):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def _descends(pid: int) -> bool:
    """Is that one of the processes that this one, or one of its children, has started?"""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return False


def wait(until: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.02)


def assert_alike(run: RunFolder, other: RunFolder) -> None:
    """Two runs have drawn the same tokens and have the same rows, but for events, up to rounding: where a process has
    its memory decides on the last digit of a sum."""
    assert tokens(run.read_trajectories()) == tokens(other.read_trajectories())
    assert tokens(run.read_evaluations()) == tokens(other.read_evaluations())
    for row, expected in zip(without_events(run), without_events(other), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5)


def tokens(by_step: dict[int, list[Trajectory]]) -> list[tuple[int, str, list[int]]]:
    return [(step, each.id, each.response_ids) for step, found in by_step.items() for each in found]


def without_events(run: RunFolder) -> list[dict[str, Any]]:
    return [{name: n for name, n in row.items() if not name.startswith(EVENTS)} for row in read_rows(run.metrics)]
