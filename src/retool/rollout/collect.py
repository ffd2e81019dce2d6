"""Many trajectories at once: roll out, then grade and reward."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from retool.errors import RetoolError
from retool.grading import Grader
from retool.objectives.rewards import Reward, add_rewards, outcome_reward
from retool.rollout.agent import Agent, Task
from retool.rollout.grading import grade
from retool.rollout.messages import MessageAgent
from retool.rollout.together import together
from retool.types import StopReason, Trajectory


async def collect(
    agent: Agent | MessageAgent,
    tasks: Sequence[Task],
    grader: Grader,
    samples: int | None = None,
    rewards: Sequence[Reward] = (outcome_reward,),
    finished: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Roll out and grade every task; the result is in the order of the tasks, whoever finished first. Its reward is the
    sum of `rewards`. `finished` is told of each trajectory when it has ended, before it is graded.

    Tasks with a sample number of `samples` or more are spare: as many trajectories of a group are kept as it has other
    tasks, those that are complete first, and when they are there the rest of the group is cancelled. This prefers short
    responses. A trajectory that the sandbox lost is kept only for want of another one.

    It fails as a whole: an error in one trajectory, or a cancellation from outside, cancels all others first.
    """
    trajectories = await _roll_out(agent, tasks, samples, finished)
    for trajectory in trajectories:
        grade(trajectory, grader, agent.protocol)
        trajectory.reward = add_rewards(trajectory, rewards)
    return trajectories


async def _roll_out(
    agent: Agent | MessageAgent,
    tasks: Sequence[Task],
    samples: int | None,
    finished: Callable[[Trajectory], None] | None,
) -> list[Trajectory]:
    wanted = Counter(task.group for task in tasks if samples is None or task.sample < samples)
    missing = wanted.copy()
    members: dict[str, list[int]] = defaultdict(list)
    running: list[asyncio.Task[None]] = []
    ended: dict[int, Trajectory] = {}  # by position in `tasks`, in the order of time

    async def one(index: int, task: Task) -> None:
        ended[index] = await agent.run(task)
        if finished:
            finished(ended[index])
        missing[task.group] -= not _lost(ended[index])
        if missing[task.group] == 0:
            for rival in members[task.group]:
                if rival not in ended:
                    running[rival].cancel()

    async with together() as group:
        for index, task in enumerate(tasks):
            members[task.group].append(index)
            running.append(group.create_task(one(index, task)))

    kept: list[int] = []
    for index in sorted(ended, key=lambda index: _lost(ended[index])):
        if wanted[tasks[index].group] > 0:
            wanted[tasks[index].group] -= 1
            kept.append(index)
    if wanted.total():
        raise RetoolError(f"{wanted.total()} trajectories were cancelled by the sampler or the sandbox itself")
    return [ended[index] for index in sorted(kept)]


def _lost(trajectory: Trajectory) -> bool:
    return trajectory.stop is StopReason.SANDBOX
