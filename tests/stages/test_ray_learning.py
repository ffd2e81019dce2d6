"""On a Ray cluster the nano model learns what it learns in one process, from as many samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import cold_start, reinforce

pytest.importorskip("ray", reason="Ray is not installed")

from ray_cluster import reinforce_on_ray, three_nodes

from retool.config.load import load_config
from retool.config.schema import Config
from retool.runs import RunFolder, read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PASSED = 0.96
MORE_SAMPLES = 1.3
RL = ("threads=1", "rl.learning_rate=1.0e-5", "rl.decay=constant", "rl.eval_every=1", "rl.eval_problems=100")
CLUSTER = ("cluster.learners=2", "cluster.samplers=2", "cluster.sandboxes=2", "cluster.gpu=cpu")


def config(*overrides: str) -> Config:
    return load_config(Config, "nano", ["sandbox.allow_weak=true", *RL, *overrides])


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After its cold start."""
    return cold_start(config(), tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def one(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of one process, until it passes."""
    return reinforce(config("rl.steps=24"), nano, tmp_path_factory.mktemp("one") / "rl")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with three_nodes():
        yield


def step_passed(run: RunFolder) -> int:
    """The first step after which `PASSED` of the held-out problems are solved."""
    accuracies = {row["step"]: row["heldout_accuracy"] for row in read_rows(run.metrics) if "heldout_accuracy" in row}
    print(accuracies)
    return next(step for step, accuracy in accuracies.items() if accuracy >= PASSED)


def test_in_sync_it_passes_with_as_many_samples(one: RunFolder, nano: Path, tmp_path: Path) -> None:
    run = reinforce_on_ray(config(f"rl.steps={step_passed(one)}", *CLUSTER), nano, tmp_path / "rl")
    assert step_passed(run) == step_passed(one)


def test_two_versions_behind_it_passes_with_little_more(one: RunFolder, nano: Path, tmp_path: Path) -> None:
    most = int(MORE_SAMPLES * step_passed(one))
    settings = (f"rl.steps={most}", "cluster.mode=async", "cluster.staleness=2", "rollout.deterministic=false")
    run = reinforce_on_ray(config(*settings, *CLUSTER), nano, tmp_path / "rl")
    assert step_passed(run) <= most
    assert any(row["staleness_max"] > 0 for row in read_rows(run.metrics))
