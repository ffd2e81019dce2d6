"""Samplers of a Ray cluster before vLLM servers: each has one of its own, and its weights follow the learner's.

With vLLM itself they need the python of an environment with it, named by RETOOL_VLLM_PYTHON (`make test-vllm`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest
from small_run import cold_start, small_config
from transformers import AutoModelForCausalLM

pytest.importorskip("ray", reason="Ray is not installed")

from ray_cluster import assert_counted, assert_each_once, events, reinforce_on_ray, running, steps, three_nodes, wait

from retool.config.schema import Config
from retool.runs import RunFolder, read_rows
from retool.types import Author
from small_vllm import SmallVllm

PYTHON = os.environ.get("RETOOL_VLLM_PYTHON")
RUN = ("threads=1", "rl.save_every=1", "rl.eval_every=0", "cluster.gpu=cpu", "cluster.samplers=2")
VLLM = ("sampler.backend=vllm", "rollout.deterministic=false", "rollout.rows=2")  # so few that both have work
WIDE = ("model.architecture.hidden_size=64", "threads=1")  # heads of 32, the fewest of vLLM's attention on CPUs
SERVER = "vllm.entrypoints.launchers.api_server.entry"


@contextmanager
def serving(servers: Sequence[SmallVllm]) -> Iterator[list[str]]:
    """In a thread of this process; where they are."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = Thread(target=loop.run_forever)
    thread.start()

    async def opened() -> list[str]:
        return [await stack.enter_async_context(server.serve()) for server in servers]

    try:
        yield asyncio.run_coroutine_threadsafe(opened(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def assert_weights_followed(run: RunFolder, config: Config) -> None:
    """Each step was sampled with the weights of the step before it, and servers said of a few tokens what the learner
    says."""
    assert_each_once(run, config)
    for step, trajectories in run.read_trajectories().items():
        written = [span for each in trajectories for span in each.spans if span.author is Author.MODEL]
        assert {version for span in written for version in span.versions()} == {step - 1}
    gaps = [row["weight_gap"] for row in read_rows(run.timings)]
    assert len(gaps) == config.rl.steps and all(gap < 1e-3 for gap in gaps)


def by_way_of(folder: Path) -> list[str]:
    """Settings with which weights are handed over in there."""
    (folder / "weights").mkdir()
    return [f"sampler.weights_folder={folder / 'weights'}"]


def vllm_servers() -> list[int]:
    """Process ids of the servers that samplers have started."""
    return running(lambda words: words[1:3] == ["-m", SERVER])


@pytest.mark.slow
def test_each_sampler_has_one_of_the_servers(cold: Path, tmp_path: Path) -> None:
    servers = [SmallVllm(AutoModelForCausalLM.from_pretrained(cold)) for _ in range(2)]
    with three_nodes(), serving(servers) as urls:
        config = small_config(*RUN, *VLLM, *by_way_of(tmp_path), "rl.steps=2", f"sampler.urls=[{', '.join(urls)}]")
        run = reinforce_on_ray(config, cold, tmp_path / "rl")
    assert_weights_followed(run, config)
    assert not events(run)
    assert not list((tmp_path / "weights").iterdir())
    users = [{body["cache_salt"].partition("-")[0] for body in server.streams} for server in servers]
    assert len(users[0]) == len(users[1]) == 1 and users[0] != users[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(PYTHON is None, reason="RETOOL_VLLM_PYTHON is not set: the python of an environment with vLLM")
def test_servers_that_are_killed_are_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    cold = cold_start(small_config(*WIDE), tmp_path)
    started = (*WIDE, f"sampler.vllm_python={PYTHON}", "sampler.vllm_args=[--enforce-eager]")
    config, run = small_config(*RUN, *VLLM, *by_way_of(tmp_path), *started, "rl.steps=4"), RunFolder(tmp_path / "rl")
    with three_nodes(), ThreadPoolExecutor(1) as pool:
        ended = pool.submit(reinforce_on_ray, config, cold, run.path)
        wait(lambda: (steps(run) >= 2 and len(vllm_servers()) == 2) or ended.done(), seconds=900)
        for pid in vllm_servers():
            os.kill(pid, signal.SIGKILL)
        ended.result()
        assert not vllm_servers()
    assert_weights_followed(run, config)
    assert events(run)["sampler_lost"] == 2
    assert_counted(run)
    assert not list((tmp_path / "weights").iterdir())
