"""Evaluation: k samples of each problem, graded, with intervals; every sample is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retool.analysis import behaviour
from retool.config.schema import Config
from retool.evaluation import summarize
from retool.files import publish
from retool.learner.policy import load_policy
from retool.runs import environment, write_trajectories
from retool.stages.progress import Progress
from retool.stages.workbench import open_workbench, prepare_torch
from retool.types import Problem, Trajectory


async def run_eval(config: Config, problems: Sequence[Problem], out: Path, arm: str = "eval") -> dict[str, Any]:
    """Evaluate `model.path`; writes `results.json`, `samples.jsonl` and `timings.json` to `out`, returns the first."""
    prepare_torch(config)
    model, tokenizer = load_policy(config.model)
    name = str(config.model.path)
    async with open_workbench(config, model, tokenizer, problems, model_name=name, arm=arm) as bench:
        with Progress(f"evaluation ({arm})", 1) as progress:
            rollout = await bench.roll_out(
                problems,
                step=0,
                samples=config.eval.samples,
                sampling=config.eval.sampling,
                progress=progress,
                interpreter=config.eval.interpreter == "on",
                timeline=out / "timeline" / "step-0.json",
            )
            progress.step_done()
        isolation = bench.isolation()
    trajectories = rollout.trajectories
    results = measure(trajectories, config.seed) | {
        "model": name,
        "protocol": _protocol(config),
        "environment": environment(isolation=isolation),
    }
    write_trajectories(out / "samples.jsonl", trajectories)
    publish(out / "timings.json", json.dumps(rollout.record, indent=2) + "\n")
    publish(out / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def measure(trajectories: Sequence[Trajectory], seed: int) -> dict[str, Any]:
    """Accuracy with its interval, and behaviour, of one set of trajectories."""
    return summarize(trajectories, seed=seed) | behaviour(trajectories)


def _protocol(config: Config) -> dict[str, Any]:
    """Everything that the numbers depend on beside model and problems."""
    return {
        "name": config.protocol.name,
        "interpreter": config.eval.interpreter,
        "samples": config.eval.samples,
        "seed": config.seed,
        "data": config.data.heldout,
        "limit": config.data.heldout_limit,
        "sampling": config.eval.sampling.model_dump(),
        "instruction": config.protocol.instruction,
        "rollout": config.rollout.model_dump(),
        "sandbox": config.sandbox.model_dump(),
    }
