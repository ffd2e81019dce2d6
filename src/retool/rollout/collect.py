"""Many trajectories at once: roll out, then grade and reward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from retool.grading import Grader, extract_answer
from retool.objectives.rewards import outcome_reward
from retool.protocol import Protocol
from retool.rollout.agent import Agent, Task
from retool.types import Author, StopReason, Trajectory


async def collect(
    agent: Agent, tasks: Sequence[Task], grader: Grader, on_done: Callable[[Trajectory], None] = lambda _: None
) -> list[Trajectory]:
    """Roll out and grade every task; the result is in the order of the tasks, whoever finished first."""

    async def one(task: Task) -> Trajectory:
        trajectory = await agent.run(task)
        on_done(trajectory)
        return trajectory

    trajectories = list(await asyncio.gather(*map(one, tasks)))
    for trajectory in trajectories:
        grade(trajectory, grader, agent.protocol)
    return trajectories


def grade(trajectory: Trajectory, grader: Grader, protocol: Protocol) -> None:
    """Fill in answer, correct and reward, from the reasoning that the model itself wrote."""
    trajectory.answer = extract_answer(reasoning(trajectory, protocol))
    finished = trajectory.stop is StopReason.EOS
    trajectory.correct = finished and grader.grade(trajectory.answer, trajectory.problem.answer)
    trajectory.reward = outcome_reward(trajectory)


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
