"""Which CPUs and GPUs of a Ray cluster learners and samplers have, and what a sampler's own config is."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_run import reinforce, small_config

pytest.importorskip("ray", reason="Ray is not installed")

import ray
from ray.util.placement_group import remove_placement_group
from ray_cluster import assert_alike, assert_each_once, events, processes, reinforce_on_ray, steps, wait

from retool.cluster.hardware import GIB
from retool.cluster.memory import asleep, held_by_learner, held_by_sampler, passes_of_learner, total, usable
from retool.cluster.shape import find_shape
from retool.config.load import load_config
from retool.config.schema import Config
from retool.errors import UsageError
from retool.runs import RunFolder
from retool.stages.cluster.launch import check
from retool.stages.cluster.places import (
    beside_learner,
    config_of_sampler,
    options_of_learner,
    options_of_sampler,
    reserve,
    resources,
)

COLOCATED = ("cluster.placement=colocated", "cluster.mode=sync", "cluster.learners=2", "cluster.samplers=2")


def config_of(*overrides: str) -> Config:
    return load_config(Config, "qwen2.5-7b", ["threads=1", *overrides])


def places_of(options: Sequence[dict]) -> list[tuple[str, list[int]]]:
    """The node and the GPUs of actors with such options."""

    class Probe:  # in here, so that it travels by itself and nothing of this file is imported elsewhere
        def where(self) -> tuple[str, list[int]]:
            return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()

    probes = [ray.remote(Probe).options(**each).remote() for each in options]
    return ray.get([probe.where.remote() for probe in probes], timeout=120)


def test_learner_and_sampler_of_a_number_share_a_gpu(cluster: None) -> None:
    config = config_of("sampler.backend=engine", *COLOCATED)
    shared = reserve(config)
    try:
        learners = [options_of_learner(config, shared, rank) for rank in range(2)]
        samplers = [options_of_sampler(config, shared, number) for number in range(2)]
        found = places_of([*learners, *samplers])
    finally:
        remove_placement_group(shared)
    assert found[:2] == found[2:] and found[0][0] != found[1][0]
    assert all(len(gpus) == 1 for _, gpus in found)
    assert resources(config) == {"CPU": 4, "GPU": 2}


def test_apart_a_sampler_has_gpus_of_its_own_but_for_one_whose_server_runs_already(cluster: None) -> None:
    config = config_of("cluster.learners=1", "cluster.samplers=1")
    served = config_of("cluster.learners=1", "sampler.urls=[http://a:1, http://b:1, http://c:1]")
    places = reserve(config)
    try:
        options = [options_of_learner(config, places, 0), options_of_sampler(config, None, 0)]
        learner, sampler, other = places_of([*options, options_of_sampler(served, None, 1)])
    finally:
        remove_placement_group(places)
    assert len(learner[1]) == len(sampler[1]) == 1 and learner != sampler
    assert other[1] == []
    assert resources(served) == {"CPU": 4, "GPU": 1}
    assert resources(config_of("cluster.tensor_parallel=4", "cluster.samplers=2")) == {"CPU": 6, "GPU": 12}


@pytest.mark.slow
def test_a_run_in_shared_places_goes_on_in_them_when_a_learner_dies(cluster: None, cold: Path, tmp_path: Path) -> None:
    rl = ("threads=1", "rl.steps=4", "rl.save_every=1", "rl.eval_every=0")
    config, run = small_config(*rl, "cluster.placement=colocated", "cluster.gpu=cpu"), RunFolder(tmp_path / "rl")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(reinforce_on_ray, config, cold, run.path)
        wait(lambda: steps(run) >= 1 or ended.done())
        os.kill(processes("LearnerActor")[0], signal.SIGKILL)
        ended.result()
    assert events(run)["learner_lost"] == 1
    assert_each_once(run, config)
    assert_alike(run, reinforce(small_config(*rl), cold, tmp_path / "one"))
    assert all(each["state"] == "REMOVED" for each in ray.util.placement_group_table().values())


# What a sampler makes of the run's config


def test_each_sampler_has_a_server_of_its_own() -> None:
    config = config_of("sampler.urls=[http://a:1, http://b:1]")
    assert [config_of_sampler(config, number).sampler.urls for number in range(2)] == [("http://a:1",), ("http://b:1",)]


def test_a_server_is_started_on_all_gpus_of_its_sampler_which_takes_none_of_their_memory() -> None:
    settings = ("sampler.vllm_python=python", "sampler.vllm_args=[--enforce-eager]", "model.device=cuda")
    own = config_of_sampler(config_of(*settings, "cluster.tensor_parallel=4"), 0)
    assert own.sampler.vllm_args == ("--tensor-parallel-size", "4", "--enforce-eager")
    assert own.model.device == "cpu"
    assert config_of_sampler(config_of(*settings), 0).sampler.vllm_args == ("--enforce-eager",)


def test_the_engine_samples_as_the_run_says() -> None:
    config = config_of("sampler.backend=engine", "model.device=cuda")
    assert config_of_sampler(config, 1) is config


def test_on_a_shared_gpu_the_cache_takes_what_the_learner_never_needs() -> None:
    config = config_of("sampler.backend=engine", *COLOCATED, "cluster.learners=8", "cluster.samplers=8")
    shape, memory = find_shape(config.model), 80 * GIB
    own = beside_learner(config, memory)
    cache = own.rollout.cache_mib << 20
    learner = total([*held_by_learner(shape, config), *passes_of_learner(shape, config)])
    together = learner + asleep() + total(held_by_sampler(shape, config)) + cache
    assert cache > 20 * GIB
    assert 0 <= usable(memory, "learner") - together < 1 << 20
    assert beside_learner(own, GIB) is own, "what a config says itself stays"
    with pytest.raises(UsageError, match="a GPU of 24 GiB that learner and sampler share has no room for a KV cache"):
        beside_learner(config, 24 * GIB)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (COLOCATED, "colocated is run with sampler.backend=engine only.*cluster.placement=apart"),
        (("sampler.backend=engine", "cluster.tensor_parallel=2"), "tensor_parallel=2 needs sampler.backend=vllm"),
        (("sampler.backend=engine", "sampler.urls=[http://a:1]"), "set sampler.backend=vllm, or leave them out"),
        (("cluster.weights=nccl",), "cluster.weights=nccl .* set cluster.weights=shared_memory"),
    ],
)
def test_what_is_planned_for_but_not_run_is_refused(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(config_of(*overrides))
