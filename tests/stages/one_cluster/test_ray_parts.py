"""Parts of a run on a Ray cluster by themselves: weights on their way, and calls that find a sandbox full or gone."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

pytest.importorskip("ray", reason="Ray is not installed")

import ray

from retool.cluster.groups import Ask, Group, GroupQueue
from retool.config.sampling import SamplingConfig
from retool.config.sandbox import SandboxConfig
from retool.errors import RetoolError
from retool.sandbox import Result
from retool.stages.cluster import weights
from retool.stages.cluster.controller import Controller
from retool.stages.cluster.messages import Published
from retool.stages.cluster.sampler import SamplerActor
from retool.stages.cluster.sandboxes import NearestSandbox, PlacedSandbox, SandboxActor
from retool.stages.cluster.weights import copy_in, from_shard, publish, take_over, to_shards
from retool.types import CallStatus, Problem

pytestmark = pytest.mark.usefixtures("cluster")


def changed(model: PreTrainedModel) -> PreTrainedModel:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    return other


@pytest.mark.parametrize("by_files", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_bit_by_bit(
    dtype: torch.dtype, by_files: bool, model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", 10_000)
    learner, sampler = model.to(dtype), changed(model.to(dtype))
    published = publish(3, learner.named_parameters(), tmp_path if by_files else None)
    assert by_files or len(published.shards) > 2
    asyncio.run(take_over(published, sampler))
    for name, weight in learner.named_parameters():
        assert torch.equal(weight, sampler.get_parameter(name)), name


def test_of_files_the_last_two_versions_are_kept(model: PreTrainedModel, tmp_path: Path) -> None:
    for version in range(4):
        publish(version, model.named_parameters(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"version-2", "version-3"}


def test_weights_that_are_not_what_was_published_are_refused(model: PreTrainedModel) -> None:
    published = publish(3, model.named_parameters(), None)
    (shard,) = to_shards(changed(model).named_parameters())
    with pytest.raises(RetoolError, match="version 3 have not arrived whole"):
        copy_in(model, dict(from_shard(shard)), published)
    half = dict(list(from_shard(shard))[:3])
    with pytest.raises(RetoolError, match="have not arrived whole"):
        copy_in(model, half, published)
    with pytest.raises(RetoolError, match=r"the learner has weights .*other"):
        copy_in(model, {"other": torch.zeros(1)}, published)


def test_a_sampler_that_has_missed_an_update_begins_nothing() -> None:
    sampler = SamplerActor()
    sampler._version = 4
    group = Group("g", Problem("p", "?", "1", "test"), Ask(6, "a", 1, SamplingConfig(), 1.0, ()), oldest=5)
    with pytest.raises(RetoolError, match="weights of version 4, and group g is to be begun with version 5"):
        asyncio.run(sampler.roll_out(group))


@pytest.mark.parametrize("digest", ["the same", "another"])
def test_a_new_gang_finds_what_was_begun_with_the_weights_that_it_has(digest: str) -> None:
    async def main() -> bool:
        controller = Controller()
        controller.queue = GroupQueue(bound=100)
        groups = [
            Group(f"g{n}", Problem("p", "?", "1", "test"), Ask(4, "a", 1, SamplingConfig(), 1.0, ()), 3) for n in (0, 1)
        ]
        lost = controller.new_gang()
        await controller.publish(lost, Published(3, "the same", ()))
        await controller.begin(lost, groups)
        controller.queue.finish(controller.queue.take(version=3), "its trajectories")
        gang = controller.new_gang()
        with pytest.raises(RetoolError, match="gang 1 of learners has been replaced by gang 2"):
            await controller.begin(lost, groups)
        await controller.publish(gang, Published(3, digest, ()))
        await controller.begin(gang, groups)
        assert len(controller.queue) == 2
        first = asyncio.create_task(controller.result(gang, "g0"))
        await asyncio.sleep(0.01)
        return first.done()

    assert asyncio.run(main()) == (digest == "the same")


# Sandboxes


def place(count: int, queue: int = 100) -> list[PlacedSandbox]:
    """On nodes of which the first one is this process's."""
    config = SandboxConfig(workers=1, allow_weak=True)
    make = ray.remote(SandboxActor).options(num_cpus=0, max_concurrency=100)
    return [PlacedSandbox(f"node {number}", make.remote(config, queue)) for number in range(count)]


def nearest(placed: list[PlacedSandbox]) -> NearestSandbox:
    async def find() -> list[PlacedSandbox]:
        return placed

    return NearestSandbox("node 0", find)


def test_calls_that_find_the_nearest_sandbox_full_go_to_another() -> None:
    placed = place(2, queue=1)
    ray.get([each.actor.isolation.remote() for each in placed])

    async def main() -> list[Result]:
        async with nearest(placed) as sandbox:
            calls = (sandbox.run("import time; time.sleep(1)\nprint(1)", key=n) for n in range(6))
            return await asyncio.gather(*calls)

    results = asyncio.run(main())
    assert [result.text for result in results] == ["1"] * 6
    assert sum(result.queue_s < 0.5 for result in results) == 2  # one began at once in each
    assert max(result.queue_s for result in results) < 1.6  # and no more than one waits in each


def test_a_call_whose_sandbox_dies_is_run_by_another() -> None:
    placed = place(2)
    ray.get([each.actor.isolation.remote() for each in placed])

    async def main() -> Result:
        async with nearest(placed) as sandbox:
            call = asyncio.create_task(sandbox.run("import time; time.sleep(2)\nprint(6 * 7)"))
            await asyncio.sleep(1)
            ray.kill(placed[0].actor)
            return await call

    assert asyncio.run(main()).text == "42"


def test_a_session_stays_where_its_state_is() -> None:
    placed = place(2)

    async def main() -> list[Result]:
        async with nearest(placed) as sandbox:
            with sandbox.session(1, group="t") as session:
                results = [await session.run("x = 6"), await session.run("x * 7", echo=True)]
                ray.kill(placed[0].actor)
                return [*results, await session.run("x")]

    first, second, lost = asyncio.run(main())
    assert first.status is CallStatus.OK and second.text == "42"
    assert lost.status is CallStatus.SANDBOX_ERROR
