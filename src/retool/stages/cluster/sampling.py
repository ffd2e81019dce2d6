"""Keeping a sampler: it is started, given weights and groups, and started anew when it has died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import ceil
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from retool.config.schema import Config
from retool.errors import RetoolError, UsageError
from retool.stages.cluster.sampler import SamplerActor
from retool.stages.cluster.weights import Published
from retool.stages.refill import problems_of_run

if TYPE_CHECKING:
    from retool.stages.cluster.controller import Controller

_MOST_LOSSES = 10  # of a sampler, one after the other, without a group between them
_PAUSE_SECONDS = 1.0


async def keep_sampler(controller: Controller, number: int) -> None:
    """Have sampler `number` work for the run, for ever. Raises what a user is to be told: settings that it cannot work
    with, or an error that comes again and again."""
    losses = 0
    while True:
        sampler = _start(controller.task.config)
        work = _Work(controller, sampler)
        try:
            await work.go_on()
        except (RayActorError, RayTaskError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, UsageError):
                raise cause from None
            losses = 1 if work.groups else losses + 1
            controller.record("sampler_lost", sampler=number, why=_first_line(cause))
            if losses == _MOST_LOSSES:
                raise RetoolError(
                    f"sampler {number} was lost {losses} times without having rolled out anything, at last because: "
                    f"{_first_line(cause)}"
                ) from error
        finally:
            ray.kill(sampler)


class _Work:
    """What one sampler does from its start to its end. `groups` counts those that it has rolled out."""

    def __init__(self, controller: Controller, sampler: ActorHandle):
        self.groups = 0
        self._controller, self._sampler = controller, sampler
        self._taken: Published | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        config = controller.task.config
        self._most = ceil(config.rollout.rows / config.rl.samples) + 1  # so that one waits where others end
        self._may_change = controller.cluster.mode == "async"

    async def go_on(self) -> None:
        """Until it fails, which is raised."""
        run = self._controller.task
        problems = problems_of_run(run.config, run.training, run.heldout)
        await self._sampler.open.remote(run.config, problems, run.arm, self._controller.handle())
        end = asyncio.create_task(_result(self._sampler.lives.remote()))
        try:
            while True:
                news = asyncio.create_task(self._controller.news.wait())
                await self._take_what_there_is()
                done, _ = await asyncio.wait({news, end, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                for task in done - {news}:
                    task.result()
                self.groups += len(done & self._tasks)
                self._tasks -= done
        finally:
            for task in (end, *self._tasks):
                task.cancel()
            await asyncio.gather(end, *self._tasks, return_exceptions=True)

    async def _take_what_there_is(self) -> None:
        """The newest weights first, then groups. Between weights of two versions trajectories are ended first, except
        in mode `async`."""
        while (weights := self._controller.weights) and not weights.is_like(self._taken):
            if self._tasks and not self._may_change:
                return
            await self._update(weights)
        while weights and len(self._tasks) < self._most:
            group = self._controller.queue.take(weights.version)
            if group is None:
                return
            self._tasks.add(asyncio.create_task(self._controller.roll_out(self._sampler, group)))

    async def _update(self, weights: Published) -> None:
        try:
            await self._sampler.update.remote(weights)
        except RayTaskError as error:
            if not isinstance(error.cause, ObjectLostError):
                raise
            await asyncio.sleep(_PAUSE_SECONDS)  # the learner that held them is lost, others will come
        else:
            self._taken = weights


def _start(config: Config) -> ActorHandle:
    cluster = config.cluster
    gpus = 0 if config.model.device == "cpu" else cluster.tensor_parallel
    options = {"num_cpus": max(1, config.threads), "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
    return ray.remote(SamplerActor).options(max_concurrency=1 << 16, **options).remote()


async def _result(of: Awaitable[Any]) -> Any:
    return await of


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
