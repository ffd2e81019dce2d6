"""The workbench of a learner in a cluster: others roll out, and what they have made is fetched from where it lies."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, ObjectLostError

from retool.cluster.groups import Ask, Group
from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.learner.distributed import Processes, merge_parts
from retool.learner.trained import Trained
from retool.objectives.rewards import Reward, outcome_reward
from retool.rollout.meter import Meter
from retool.runs import RunFolder
from retool.stages.bench import Rollout, RolloutBench, occupancy, settled
from retool.stages.cluster.weights import publish
from retool.stages.progress import Progress
from retool.types import Author, Problem, Trajectory


class ClusterBench(RolloutBench):
    """Of gang number `gang`; its `controller` forgets what earlier ones have asked for. Each process asks for its part
    of the problems, and then all have all trajectories, as with benches of their own."""

    def __init__(self, config: Config, out: Path, arm: str, controller: ActorHandle, gang: int, processes: Processes):
        self.config, self.arm, self.processes = config, arm, processes
        self._run = RunFolder(out)
        self.steps_ahead = config.cluster.versions_behind
        self._controller, self._gang = controller, gang
        self._version = 0
        self._is_ending = False

    async def roll_out(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        progress: Progress,
        arm: str | None = None,
        oversample: float = 1.0,
        rewards: Sequence[Reward] = (outcome_reward,),
        timeline: Path | None = None,
    ) -> Rollout:
        """What has been begun is waited for. Of rollouts of another `arm`, evaluations, nothing has: they are by the
        weights of now, and leave the counts of `events` to the step's own."""
        ask = Ask(step, arm or self.arm, samples, sampling, oversample, tuple(rewards))
        groups = self._groups(problems, ask, self._version if arm else self._oldest(step))
        meter = Meter(None, progress.rollout_changed)
        progress.begin_rollout(len(groups) * samples, lambda: 0.0)
        parts = await settled(self.processes, self._fetch_all(groups, meter))
        rollouts = merge_parts(parts)
        record = Counter()
        for rollout in rollouts:
            record.update(rollout.record)
        record.pop("occupancy", None)
        trajectories = [trajectory for rollout in rollouts for trajectory in rollout.trajectories]
        events = {} if arm else self.processes.once(self._run.new_events)
        return Rollout(trajectories, record | occupancy(record, self.config.rollout.rows), events)

    async def begin(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        oversample: float,
        rewards: Sequence[Reward],
    ) -> None:
        ask = Ask(step, self.arm, samples, sampling, oversample, tuple(rewards))
        groups = self._groups(problems, ask, self._oldest(step))
        await settled(self.processes, self._controller.begin.remote(self._gang, groups))

    async def take_weights(self, version: int, trained: Trained) -> None:
        """One process publishes them; samplers take them as they can, and none samples for a step with older ones than
        that step allows."""
        await settled(self.processes, self._publish(version, trained))
        self._version = version

    async def _publish(self, version: int, trained: Trained) -> None:
        weights = trained.weights()
        try:
            if self.processes.is_writer:
                folder = self.config.sampler.weights_folder if self.config.cluster.weights == "files" else None
                published = publish(version, weights, folder and Path(folder))
                await self._controller.publish.remote(self._gang, published)
        finally:
            for _ in weights:  # all gather them, also if the one that writes cannot
                pass

    def _oldest(self, step: int) -> int:
        """The version that a step's trajectories may begin with: it will be `steps_ahead` versions behind."""
        return max(0, step - 1 - self.steps_ahead)

    def _groups(self, problems: Sequence[Problem], ask: Ask, oldest: int) -> list[Group]:
        """This process's part."""
        groups = [Group(f"{ask.arm}/{ask.step}/{problem.id}", problem, ask, oldest) for problem in problems]
        return self.processes.part(groups)

    async def _fetch_all(self, groups: Sequence[Group], meter: Meter) -> list[Rollout]:
        await self._controller.begin.remote(self._gang, groups)
        rollouts = await asyncio.gather(*(self._fetch(group, meter) for group in groups))
        await self._controller.received.remote(self._gang, [group.key for group in groups])
        return rollouts

    async def _fetch(self, group: Group, meter: Meter) -> Rollout:
        """The group's trajectories; where they were lost with the node that held them, those that took their place."""
        while True:
            found = await self._controller.result.remote(self._gang, group.key)
            if found is None:
                await self._end()
            try:
                rollout = await found[0]
            except (ObjectLostError, GetTimeoutError):
                await self._controller.again.remote(self._gang, group.key, "lost")
                continue
            if all(_first_version(trajectory) >= group.oldest for trajectory in rollout.trajectories):
                meter.add(rollout.record)
                return rollout
            await self._controller.again.remote(self._gang, group.key, "stale")

    async def _end(self) -> None:
        """The run is to end: this process tells itself as a scheduler would, and is cancelled."""
        if not self._is_ending:
            self._is_ending = True
            signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()


def _first_version(trajectory: Trajectory) -> int:
    return next((span.version for span in trajectory.spans if span.author is Author.MODEL), trajectory.step)
