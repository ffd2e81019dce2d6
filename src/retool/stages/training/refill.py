"""A step's rollouts, with further rounds of problems until enough groups differ (dynamic sampling, DAPO, arXiv
2503.14476, §3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from retool.config.schema import RlConfig
from retool.errors import UsageError
from retool.learner.objective import Objective, learnable
from retool.objectives.selection import equal_rewards
from retool.runs import RunFolder
from retool.stages.bench import Rollout, RolloutBench, occupancy
from retool.stages.progress import Progress
from retool.stages.training.passes import draw_in_passes
from retool.types import Problem, Trajectory


def check_refill(rl: RlConfig, objective: Objective) -> None:
    """Raises UsageError for `rl.refill` without the filter that it makes up for."""
    if rl.refill and not any(getattr(filter_, "func", filter_) is equal_rewards for filter_ in objective.filters):
        raise UsageError(
            f"rl.refill={rl.refill} makes up for groups that the filter equal_rewards drops, and this run has no such "
            "filter: set rl.filters=[equal_rewards] (or rl.algorithm=dapo), or rl.refill=0"
        )


async def roll_out_step(
    bench: RolloutBench,
    training: Sequence[Problem],
    objective: Objective,
    run: RunFolder,
    step: int,
    progress: Progress,
) -> tuple[Rollout, int]:
    """The rollouts of step `step`, of all rounds together, and the number of rounds after the first. The first rounds
    of the steps after it are begun, as far ahead as the bench goes.

    A round draws as many further problems as groups are missing, a function of (seed, step, round) but for those that
    the step has had.
    """
    rl, seed = bench.config.rl, bench.config.seed
    settings = {
        "samples": rl.samples,
        "sampling": bench.config.sampling,
        "oversample": bench.config.rollout.oversample,
        "rewards": objective.rewards,
    }
    for begun in range(step, min(step + bench.steps_ahead, rl.steps) + 1):
        await bench.begin(draw_in_passes(training, rl.prompts, seed, begun - 1), step=begun, **settings)
    problems = draw_in_passes(training, rl.prompts, seed, step - 1)
    rollout, rounds = Rollout([], {}), 0
    had: set[str] = set()
    while problems:
        had.update(problem.id for problem in problems)
        name = f"step-{step}.round-{rounds}.json" if rounds else f"step-{step}.json"
        found = await bench.roll_out(problems, step=step, progress=progress, timeline=run.timelines / name, **settings)
        rollout = _together(rollout, found, bench.config.rollout.rows)
        missing = rl.prompts - _differing_groups(rollout.trajectories)
        if rounds == rl.refill or missing <= 0:
            break
        problems = _draw_further(training, had, missing, [seed, step, rounds + 1])
        rounds += bool(problems)
    return rollout, rounds


def _draw_further(training: Sequence[Problem], had: set[str], count: int, seed: list[int]) -> list[Problem]:
    """Problems in an order of their own, without those that the step has `had`."""
    order = np.random.default_rng(seed).permutation(len(training))
    return [training[i] for i in order if training[i].id not in had][:count]


def _differing_groups(trajectories: Sequence[Trajectory]) -> int:
    """Groups with different rewards among what the learner will see."""
    present = learnable(trajectories)
    kept = equal_rewards(present, np.random.default_rng(0)).kept  # draws nothing
    return len({present[i].group for i in kept})


def _together(first: Rollout, second: Rollout, rows: int) -> Rollout:
    """Both batches as one; what they cost is added up."""
    record = {name: first.record.get(name, 0) + second.record.get(name, 0) for name in first.record | second.record}
    events = Counter(first.events) + Counter(second.events)
    return Rollout(first.trajectories + second.trajectories, record | occupancy(record, rows), dict(events))
