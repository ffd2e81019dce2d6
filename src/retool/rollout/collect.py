"""Many trajectories at once: roll out, then grade and reward."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence

from retool.errors import RetoolError
from retool.grading import Grader, extract_answer
from retool.objectives.rewards import Reward, add_rewards, outcome_reward
from retool.protocol import Protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.together import together
from retool.types import Author, StopReason, Trajectory


async def collect(
    agent: Agent,
    tasks: Sequence[Task],
    grader: Grader,
    samples: int | None = None,
    rewards: Sequence[Reward] = (outcome_reward,),
) -> list[Trajectory]:
    """Roll out and grade every task; the result is in the order of the tasks, whoever finished first. Its reward is the
    sum of `rewards`.

    Tasks with a sample number of `samples` or more are spare: as many trajectories of a group are kept as it has other
    tasks, those that are complete first, and when they are there the rest of the group is cancelled. This prefers short
    responses. A trajectory that the sandbox lost is kept only for want of another one.

    It fails as a whole: an error in one trajectory, or a cancellation from outside, cancels all others first.
    """
    trajectories = await _roll_out(agent, tasks, samples)
    for trajectory in trajectories:
        grade(trajectory, grader, agent.protocol)
        trajectory.reward = add_rewards(trajectory, rewards)
    return trajectories


async def _roll_out(agent: Agent, tasks: Sequence[Task], samples: int | None) -> list[Trajectory]:
    wanted = Counter(task.group for task in tasks if samples is None or task.sample < samples)
    missing = wanted.copy()
    members: dict[str, list[int]] = defaultdict(list)
    running: list[asyncio.Task[None]] = []
    ended: dict[int, Trajectory] = {}  # by position in `tasks`, in the order of time

    async def one(index: int, task: Task) -> None:
        ended[index] = await agent.run(task)
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


def grade(trajectory: Trajectory, grader: Grader, protocol: Protocol) -> None:
    """Fill in answer and correct, from the reasoning that the model itself wrote."""
    trajectory.answer = extract_answer(reasoning(trajectory, protocol))
    finished = trajectory.stop is StopReason.EOS
    trajectory.correct = finished and grader.grade(trajectory.answer, trajectory.problem.answer)


def reasoning(trajectory: Trajectory, protocol: Protocol) -> list[str]:
    """The texts of the model's spans without their calls: `print("\\boxed{42}")` is code and no answer."""
    texts, position = [], 0
    first_call = {call.span: call.start for call in reversed(trajectory.calls)}
    for index, span in enumerate(trajectory.spans):
        if span.author is Author.MODEL:
            end = first_call[index] - position if index in first_call else len(span.ids)
            texts.append(protocol.decode(span.ids[:end]))
        position += len(span.ids)
    return texts
