"""Many trajectories at once: roll out, then grade and reward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from retool.grading import Grader, extract_answer
from retool.objectives.rewards import outcome_reward
from retool.rollout.agent import Agent, Task
from retool.types import StopReason, Trajectory


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
        grade(trajectory, grader)
    return trajectories


def grade(trajectory: Trajectory, grader: Grader) -> None:
    """Fill in answer, correct and reward, from what the model itself wrote."""
    trajectory.answer = extract_answer(trajectory.model_texts)
    finished = trajectory.stop is StopReason.EOS
    trajectory.correct = finished and grader.grade(trajectory.answer, trajectory.problem.answer)
    trajectory.reward = outcome_reward(trajectory)
