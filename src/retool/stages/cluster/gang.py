"""Keeping the gang of learners: all are started together, and all anew when one of them has died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from retool.config.schema import Config
from retool.errors import RetoolError
from retool.stages.cluster.learner import LearnerActor, Outcome

if TYPE_CHECKING:
    from retool.stages.cluster.controller import Controller

_MOST_LOSSES = 5  # of gangs, one after the other, without a step between them
_LAST_WORDS_SECONDS = 30.0  # in which the others say what they know when one has failed


async def train(controller: Controller) -> Outcome:
    """Train to the end, with as many gangs as it takes; each goes on from the last checkpoint."""
    losses, reached = 0, -1
    while True:
        gang = controller.new_gang()
        places = _reserve(controller.task.config)
        learners: list[ActorHandle] = []
        try:
            await places.ready()
            learners = [_start(controller.task.config, places, rank) for rank in range(places.bundle_count)]
            return await _run(controller, gang, learners)
        except RayActorError as error:
            version = controller.weights.version if controller.weights else -1
            losses, reached = (1, version) if version > reached else (losses + 1, reached)
            controller.record("learner_lost", gang=gang, version=version, why=str(error).strip().splitlines()[0])
            if losses == _MOST_LOSSES:
                raise RetoolError(
                    f"learners were lost {losses} times at the same step, {reached + 1}; Ray's logs say why, often it "
                    "is want of memory (`retool cluster plan` says how much is needed)"
                ) from error
        finally:
            for learner in learners:
                ray.kill(learner)
            remove_placement_group(places)


async def _run(controller: Controller, gang: int, learners: Sequence[ActorHandle]) -> Outcome:
    """How the gang ended. Raises RayActorError if one of them was lost, whatever the others made of that."""
    first = await learners[0].address.remote()
    run, size = ray.put(controller.task), len(learners)
    calls = [each.run.remote(run, controller.handle(), gang, rank, size, first) for rank, each in enumerate(learners)]
    running = [asyncio.create_task(_outcome(call)) for call in calls]
    try:
        pending = set(running)
        while pending and not any(map(_has_failed, running)):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=_LAST_WORDS_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        ended = [task for task in running if task.done()]
        for task in sorted(ended, key=lambda task: not isinstance(task.exception(), RayActorError)):
            task.result()
        return next((task.result() for task in ended if _has_failed(task)), running[0].result())
    finally:
        for task in running:
            task.cancel()


def _has_failed(task: asyncio.Task[Outcome]) -> bool:
    return task.done() and (task.exception() is not None or bool(task.result().error))


def _reserve(config: Config) -> PlacementGroup:
    """A place for each learner, on as few nodes as possible."""
    bundle = {"CPU": max(1, config.threads)} | ({} if config.model.device == "cpu" else {"GPU": 1})
    return placement_group([bundle] * config.cluster.learners, strategy="PACK")


def _start(config: Config, places: PlacementGroup, rank: int) -> ActorHandle:
    strategy = PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=rank)
    needed = {"num_cpus": max(1, config.threads), "num_gpus": 0 if config.model.device == "cpu" else 1}
    return ray.remote(LearnerActor).options(scheduling_strategy=strategy, **needed).remote()


async def _outcome(call: Awaitable[Outcome]) -> Outcome:
    return await call
