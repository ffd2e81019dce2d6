"""Grading another system's answers: texts in, the results of an evaluation out. No model takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retool.data.outputs import read_outputs
from retool.grading import Grader
from retool.objectives.rewards import outcome_reward
from retool.rollout.grading import grade
from retool.runs import environment, write_trajectories
from retool.stages.eval.protocol import describe_grading, describe_problems
from retool.stages.eval.results import write_results
from retool.stages.progress import Progress


def grade_outputs(path: Path, out: Path, seed: int = 0) -> dict[str, Any]:
    """Grade the rows of `path` (`retool.data.outputs`); writes `results.json` and `samples.jsonl` to `out`, returns the
    first. Of several sources, each is also measured apart."""
    trajectories = read_outputs(path)
    problems = {trajectory.problem.id: trajectory.problem for trajectory in trajectories}
    protocol = {
        "name": "outputs",
        "data": path.name,
        "seed": seed,
        "problems": describe_problems(list(problems.values())),
        "token_exact": False,
    } | describe_grading()
    with Grader() as grader:
        with Progress("grading", len(trajectories)) as progress:
            for trajectory in trajectories:
                grade(trajectory, grader)
                trajectory.reward = outcome_reward(trajectory)
                progress.step_done()
        write_trajectories(out / "samples.jsonl", trajectories)
        return write_results(
            out,
            trajectories,
            grader,
            seed,
            sets=len(protocol["problems"]) > 1,
            model=", ".join(dict.fromkeys(trajectory.model for trajectory in trajectories)),
            protocol=protocol,
            environment=environment(),
        )
