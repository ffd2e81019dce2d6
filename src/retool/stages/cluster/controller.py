"""What holds a run together: it hands out groups of trajectories, starts the other parts, and starts anew what died."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Coroutine, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, remove_placement_group

from retool.cluster.groups import Group, GroupQueue
from retool.cluster.memory import sampler_count
from retool.config.load import dump_config
from retool.errors import RetoolError, UsageError
from retool.runs import RunFolder
from retool.stages.cluster.gang import train
from retool.stages.cluster.messages import Outcome, Published, Run
from retool.stages.cluster.places import reserve
from retool.stages.cluster.sampling import Work, keep_sampler
from retool.stages.cluster.sandboxes import PlacedSandbox, keep_sandboxes


class Controller:
    """The one actor of a run that others know by name. What it starts ends with it; where it dies itself, Ray starts it
    anew, and it starts the rest, which goes on from the last checkpoint.

    Learners call `publish` first, then `begin`, `result`, `again` and `received`, with the number of their gang. A gang
    that goes on with the very weights which the one before had published finds what that one had begun, as far as it
    has come; what was begun with weights that are lost is forgotten.
    """

    def __init__(self) -> None:
        self.gang = 0
        self.weights: Published | None = None
        self.shared: PlacementGroup | None = None  # places that learners and samplers have together
        self._weights_before: Published | None = None
        self.sandboxes_by_node: dict[str, PlacedSandbox] = {}
        self.at_work: list[Work] = []
        self.news = asyncio.Event()
        self._under_way: dict[str, ray.ObjectRef] = {}
        self._is_stopping = False
        self._running: asyncio.Task[Outcome] | None = None

    # For who started the run

    async def run(self, run: Run) -> Outcome:
        """Run to the end. Who calls this again waits for the same end. Raises UsageError for another config."""
        if self._running is None:
            self.task, self.cluster = run, run.config.cluster
            step = run.config.rl.prompts * run.config.rl.samples
            bound = self.cluster.queue or step * (self.cluster.versions_behind + 1)
            self.queue: GroupQueue[ray.ObjectRef] = GroupQueue(bound)
            if _is_replacement():
                self.record("controller_lost")
            self._running = asyncio.create_task(self._run())
        elif dump_config(run.config) != dump_config(self.task.config):
            raise UsageError(
                f"a run with another config is under way in {self.task.out}; wait for its end, or name another --out"
            )
        return await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Let the learners save what they have learned, and end the run."""
        self._is_stopping = True
        self.queue.clear()

    async def places(self) -> dict[str, Any]:
        """What there is now, for those who look on."""
        version = self.weights and self.weights.version
        return {"gang": self.gang, "version": version, "groups": len(self.queue)}

    # For samplers

    async def sandboxes(self) -> list[PlacedSandbox]:
        return list(self.sandboxes_by_node.values())

    # For learners

    async def begin(self, gang: int, groups: Sequence[Group]) -> None:
        """Have these rolled out, those of earlier steps first."""
        self._check(gang)
        if not self._is_stopping:
            self.queue.begin(groups)
            self.tell_samplers()

    async def result(self, gang: int, key: str) -> list[ray.ObjectRef] | None:
        """Where a group's `Rollout` is, once it is complete. None: the run is to end."""
        self._check(gang)
        try:
            return None if self._is_stopping else [await self._awaited(key)]
        except asyncio.CancelledError:
            if self._is_stopping:
                return None
            raise

    async def again(self, gang: int, key: str, why: str) -> None:
        """A group's result was lost, or must not be learned from."""
        self._check(gang)
        self.record(f"group_{why}", group=key)
        self.queue.again(key)
        self.tell_samplers()

    async def received(self, gang: int, keys: Sequence[str]) -> None:
        """These have reached the learner."""
        self._check(gang)
        self.queue.received(keys)
        self.tell_samplers()

    async def publish(self, gang: int, published: Published) -> None:
        """Let samplers take over these weights."""
        self._check(gang)
        if self.weights is None and not published.is_like(self._weights_before):
            self._forget()
        self.weights = published
        self.tell_samplers()

    # For the parts of the controller

    def new_gang(self) -> int:
        """Samplers end what they have begun, and begin nothing until it publishes weights."""
        self.gang += 1
        self._weights_before, self.weights = self.weights or self._weights_before, None
        return self.gang

    async def roll_out(self, sampler: ActorHandle, group: Group) -> bool:
        """Have a sampler roll out a group. False: nobody wants it any more. Where it fails, the group is anybody's
        again, and its error is raised."""
        is_complete = False
        ended, rollout = sampler.roll_out.options(num_returns=2).remote(group)
        self._under_way[group.key] = ended
        try:
            await ended
            is_complete = self.queue.finish(group, rollout)
        except ray.exceptions.RayError:
            if self._under_way.get(group.key) is ended:  # else it was cancelled
                raise
        finally:
            if self._under_way.get(group.key) is ended:
                del self._under_way[group.key]
            if not is_complete and self.queue.give_back(group):
                self.record("group_restarted", group=group.key)
            self.tell_samplers()
        return is_complete

    def tell_samplers(self) -> None:
        """Something may be to be done for them."""
        self.news.set()
        self.news = asyncio.Event()

    def record(self, event: str, **facts: Any) -> None:
        """Into the log and the run's folder, from where learners count it."""
        print(f"retool: {event} {json.dumps(facts)}", flush=True)
        RunFolder(self.task.out).log_event(event, facts)

    def handle(self) -> ActorHandle:
        """This actor, for others to call."""
        return ray.get_runtime_context().current_actor

    async def _run(self) -> Outcome:
        self.shared = reserve(self.task.config) if self.cluster.placement == "colocated" else None
        samplers = range(sampler_count(self.task.config))
        kept: list[Coroutine[Any, Any, None]] = [keep_sampler(self, number) for number in samplers]
        if self.task.config.protocol.name != "text":
            kept.append(keep_sandboxes(self))
        training = asyncio.create_task(train(self))
        tasks = [training, *map(asyncio.create_task, kept)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        except RetoolError as error:
            return Outcome(error=str(error), exit_code=error.exit_code)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.shared is not None:
                remove_placement_group(self.shared)

    async def _awaited(self, key: str) -> ray.ObjectRef:
        result = asyncio.ensure_future(self.queue.result(key))
        await asyncio.sleep(0)  # so that it counts as awaited
        self.tell_samplers()
        return await result

    def _forget(self) -> None:
        self.queue.clear()
        for ended in self._under_way.values():
            ray.cancel(ended)
        self._under_way.clear()

    def _check(self, gang: int) -> None:
        if gang != self.gang:
            raise RetoolError(f"gang {gang} of learners has been replaced by gang {self.gang}")


def _is_replacement() -> bool:
    """Has Ray started this actor in the place of one that died?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about itself
        return ray.get_runtime_context().was_current_actor_reconstructed
