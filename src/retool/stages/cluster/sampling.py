"""Keeping a sampler: it is started, given weights and groups, and started anew when it has died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from retool.cluster.groups import Group
from retool.errors import RetoolError, UsageError, first_line
from retool.runs import RunFolder
from retool.stages.cluster.messages import Published
from retool.stages.cluster.places import config_of_sampler, options_of_sampler
from retool.stages.cluster.sampler import SamplerActor
from retool.stages.training.passes import problems_of_run

if TYPE_CHECKING:
    from retool.stages.cluster.controller import Controller

_MOST_LOSSES = 10  # of a sampler, one after the other, without a group between them
_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 30.0


async def keep_sampler(controller: Controller, number: int) -> None:
    """Have sampler `number` work for the run, for ever. Raises what a user is to be told: settings that it cannot work
    with, or an error that comes again and again."""
    losses = 0
    options = options_of_sampler(controller.task.config, controller.shared, number)
    while True:
        sampler = ray.remote(SamplerActor).options(max_concurrency=1 << 16, **options).remote()
        work = Work(controller, sampler, number)
        try:
            await work.go_on()
        except (RayActorError, RayTaskError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, UsageError):
                raise cause from None
            losses = 1 if work.groups else losses + 1
            controller.record("sampler_lost", sampler=number, why=first_line(cause))
            if losses == _MOST_LOSSES:
                raise RetoolError(
                    f"sampler {number} was lost {losses} times without having rolled out anything, at last because: "
                    f"{first_line(cause)}"
                ) from error
        finally:
            try:
                if work.has_begun:
                    await _close(sampler)
            finally:
                ray.kill(sampler)


async def _close(sampler: ActorHandle) -> None:
    """Have it end its server and remove its files; one that is lost leaves them."""
    with suppress(RayError, TimeoutError):
        await asyncio.wait_for(asyncio.ensure_future(sampler.close.remote()), _CLOSE_SECONDS)


class Work:
    """What one sampler does from its start to its end. `groups` counts those that it has rolled out; until it
    `has_begun` there is no process."""

    def __init__(self, controller: Controller, sampler: ActorHandle, number: int):
        self.groups, self.has_begun = 0, False
        self._controller, self._sampler, self._number = controller, sampler, number
        self._taken: Published | None = None
        self._taking: Published | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        config = controller.task.config
        self._most = ceil(config.rollout.rows / config.rl.samples) + 1  # so that one waits where others end
        self._may_change = controller.cluster.mode == "async"

    async def go_on(self) -> None:
        """Until it fails, which is raised."""
        run = self._controller.task
        problems = problems_of_run(run.config, run.training, run.heldout)
        config = config_of_sampler(run.config, self._number)
        await self._sampler.__ray_ready__.remote()
        self.has_begun = True
        await self._sampler.open.remote(config, problems, run.arm, self._controller.handle())
        end = asyncio.ensure_future(self._sampler.lives.remote())
        self._controller.at_work.append(self)
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
            self._controller.at_work.remove(self)
            self._controller.tell_samplers()
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
        while weights and self.has_room(weights) and self._has_least(weights):
            group = self._controller.queue.take(weights.version)
            if group is None:
                return
            self._tasks.add(asyncio.create_task(self._roll_out(group)))
            self._controller.tell_samplers()  # another one may have least now

    def has_room(self, weights: Published) -> bool:
        """For another group, with these weights, which it has or is taking over."""
        return len(self._tasks) < self._most and (weights.is_like(self._taken) or weights.is_like(self._taking))

    def _has_least(self, weights: Published) -> bool:
        """To do, of those that have room: groups go to all of them alike."""
        others = (work for work in self._controller.at_work if work.has_room(weights))
        return all(len(self._tasks) <= len(work._tasks) for work in others)

    async def _roll_out(self, group: Group) -> None:
        did = "rollout" if group.ask.arm == self._controller.task.arm else "evaluation"
        with self._noted(did, step=group.ask.step, group=group.key) as facts:
            facts["lost"] = not await self._controller.roll_out(self._sampler, group)

    async def _update(self, weights: Published) -> None:
        self._taking = weights
        try:
            with self._noted("weights", version=weights.version) as facts:
                await self._sampler.update.remote(weights)
                facts["lost"] = False
        except RayTaskError as error:
            if not isinstance(error.cause, ObjectLostError):
                raise
            await asyncio.sleep(_PAUSE_SECONDS)  # the learner that held them is lost, others will come
        else:
            self._taken = weights
        finally:
            self._taking = None

    @contextmanager
    def _noted(self, did: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Leave in the run's folder how long something took; it is `lost` until the facts of it say otherwise. The
        clock is the controller's, whichever node the sampler is on."""
        facts["lost"] = True
        began = time.time()
        try:
            yield facts
        finally:
            RunFolder(self._controller.task.out).log_work(self._number, did, began, time.time(), facts)
