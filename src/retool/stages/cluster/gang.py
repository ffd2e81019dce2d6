"""Keeping the gang of learners: all are started together, and all anew when one of them has died."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.placement_group import remove_placement_group

from retool.errors import RetoolError, first_line
from retool.stages.cluster.learner import LearnerActor
from retool.stages.cluster.messages import Outcome
from retool.stages.cluster.places import options_of_learner, reserve

if TYPE_CHECKING:
    from retool.stages.cluster.controller import Controller

_MOST_LOSSES = 5  # of gangs, one after the other, without a step between them
_LAST_WORDS_SECONDS = 30.0  # in which the others say what they know when one has failed


async def train(controller: Controller) -> Outcome:
    """Train to the end, with as many gangs as it takes; each goes on from the last checkpoint."""
    losses, reached = 0, -1
    config = controller.task.config
    while True:
        gang = controller.new_gang()
        places = controller.shared or reserve(config)
        learners: list[ActorHandle] = []
        try:
            await places.ready()
            options = [options_of_learner(config, places, rank) for rank in range(places.bundle_count)]
            learners = [ray.remote(LearnerActor).options(**each).remote() for each in options]
            return await _run(controller, gang, learners)
        except RayActorError as error:
            version = controller.weights.version if controller.weights else -1
            losses, reached = (1, version) if version > reached else (losses + 1, reached)
            controller.record("learner_lost", gang=gang, version=version, why=first_line(error))
            if losses == _MOST_LOSSES:
                raise RetoolError(
                    f"learners were lost {losses} times at the same step, {reached + 1}; Ray's logs say why, often it "
                    "is want of memory (`retool cluster plan` says how much is needed)"
                ) from error
        finally:
            for learner in learners:
                ray.kill(learner)
            if places is not controller.shared:
                remove_placement_group(places)


async def _run(controller: Controller, gang: int, learners: Sequence[ActorHandle]) -> Outcome:
    """How the gang ended. Raises RayActorError if one of them was lost, whatever the others made of that."""
    first = await learners[0].address.remote()
    run, size = ray.put(controller.task), len(learners)
    calls = [each.run.remote(run, controller.handle(), gang, rank, size, first) for rank, each in enumerate(learners)]
    running = [asyncio.ensure_future(call) for call in calls]
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
