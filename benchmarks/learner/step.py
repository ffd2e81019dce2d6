"""A whole step of GRPO with calls: rollout, grading and update, next to TRL's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from rollout.peer import say
from rollout.tool_rollout import LEARNING_RATE, ROLLOUT, SAMPLES, Bench, Measured, start_trl

from retool.config.sampling import SamplingConfig
from retool.config.schema import RlConfig
from retool.grading import Grader
from retool.learner.learner import Learner
from retool.learner.objective import make_objective
from retool.objectives.rewards import outcome_reward
from retool.rollout.grading import grade
from retool.sandbox import Sandbox
from retool.types import Problem


async def over_trl(
    model: Path, problems: Sequence[Problem], trl_python: Path, threads: int, rounds: int, budget: int
) -> float:
    """Completions per second of whole steps over TRL's: the same checkpoint, prompts, limits and tool."""
    bench = Bench(model, problems)
    config = RlConfig(
        algorithm="grpo", steps=rounds + 1, learning_rate=LEARNING_RATE, mini_batches=1, micro_batch_tokens=budget
    )
    learner = Learner(bench.engine.model, make_objective(config, ROLLOUT.max_tokens), config, SamplingConfig(), seed=0)
    ratios = []
    with ExitStack() as stack:
        grader, trl = stack.enter_context(Grader()), stack.enter_context(start_trl(bench, trl_python, threads))
        async with Sandbox() as box:
            for step in range(rounds + 1):  # the first is to warm up
                chosen = problems if step else problems[:1]
                began = time.perf_counter()
                rollout, trajectories = await bench.roll_out(bench.engine, box, step, chosen)
                for trajectory in trajectories:
                    grade(trajectory, grader, bench.protocol)
                    trajectory.reward = outcome_reward(trajectory)
                learner.update(trajectories, step + 1)
                seconds = time.perf_counter() - began
                theirs = Measured(**trl.ask({"prompts": len(chosen), "samples": SAMPLES, "seed": step, "learn": True}))
                if step:
                    ratios.append(rollout.completions / seconds / theirs.completions_per_second)
                    say(f"ReTool: {seconds:.1f} s, {seconds - rollout.seconds:.1f} of them the update")
                    say(f"TRL: {theirs}")
    return median(ratios)
