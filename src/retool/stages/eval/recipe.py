"""Evaluation: k samples of each problem, graded, with intervals; every sample is kept, and a stopped one goes on.

results.json      accuracy, intervals, pass@k, maj@k, behaviour, and the whole protocol they hold under
samples.jsonl     every response, graded (`stages.eval_samples` says what is there before all of them are)
timings.json      what sampling cost, of the last run
calls-N/          of a sweep over `eval.calls`: all of this for each N, and sweep.json beside them
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from retool.config.schema import Config
from retool.errors import UsageError
from retool.evaluation import compare
from retool.files import publish
from retool.learner.policy import load_policy
from retool.objectives.rewards import outcome_reward
from retool.rollout.grading import grade
from retool.runs import environment, read_trajectories
from retool.stages.eval.endpoint import EndpointBench, open_endpoint
from retool.stages.eval.protocol import describe, fingerprint
from retool.stages.eval.results import write_results
from retool.stages.eval.samples import SampleLog
from retool.stages.progress import Progress
from retool.stages.sources import heldout_sets
from retool.stages.workbench import Workbench, open_workbench, prepare_torch
from retool.types import Problem

Bench = Workbench | EndpointBench


async def run_eval(config: Config, problems: Sequence[Problem], out: Path, arm: str = "eval") -> dict[str, Any]:
    """Evaluate `model.path`, or the model behind `eval.endpoint`, and write what the top of this file lists to `out`.
    Returns what `results.json` holds, of a sweep `sweep.json`. Goes on where an evaluation in `out` stopped."""
    budgets = config.eval.calls
    async with _open(config, problems, out, arm) as (bench, facts):
        if budgets is None:
            return await _evaluate(bench, facts, problems, out, None)
        results = [await _evaluate(bench, facts, problems, sweep_folder(out, calls), calls) for calls in budgets]
    return _write_sweep(out, budgets, results, config.seed)


def sweep_folder(out: Path, calls: int) -> Path:
    """Where the evaluation of a sweep with so many calls is."""
    return out / f"calls-{calls}"


@asynccontextmanager
async def _open(
    config: Config, problems: Sequence[Problem], out: Path, arm: str
) -> AsyncIterator[tuple[Bench, dict[str, Any]]]:
    """What answers the problems, and its part of the protocol."""
    if config.eval.endpoint is not None:
        async with open_endpoint(config, arm, cache=out / "replies") as bench:
            model = {"path": config.eval.endpoint.model}
            engine = {"name": "endpoint", "url": config.eval.endpoint.url, "tool": bench.sandbox is not None}
            prompt = json.dumps(bench.prompt("{problem}"), ensure_ascii=False)
            facts = {"name": "messages", "prompt": prompt, "engine": engine, "model": model, "token_exact": False}
            yield bench, facts
        return
    if config.model.path is None:
        raise UsageError("there is no model to evaluate: give --model, or eval.endpoint.url and eval.endpoint.model")
    prepare_torch(config)
    model, tokenizer = load_policy(config.model)
    path = config.model.path
    async with open_workbench(config, model, tokenizer, problems, model_name=path, arm=arm) as bench:
        yield (
            bench,
            {
                "name": config.protocol.name,
                "prompt": bench.protocol.decode(bench.protocol.prompt_ids("{problem}")),
                "engine": {"name": config.sampler.backend, "dtype": config.model.dtype},
                "model": fingerprint(path, getattr(model.config, "_commit_hash", None)),
                "token_exact": True,
            },
        )


async def _evaluate(
    bench: Bench, facts: dict[str, Any], problems: Sequence[Problem], out: Path, calls: int | None
) -> dict[str, Any]:
    config = bench.config
    protocol = describe(config, problems, calls=calls, **facts)
    log = SampleLog(out, protocol, problems, config.eval.samples)
    name = f"evaluation ({bench.arm})" if calls is None else f"evaluation ({bench.arm}, {calls} calls)"
    with log, Progress(name, 1) as progress:
        rollout = await bench.roll_out(
            problems,
            step=0,
            samples=config.eval.samples,
            sampling=config.eval.sampling,
            progress=progress,
            interpreter=config.eval.interpreter == "on",
            timeline=out / "timeline" / "step-0.json",
            calls=calls,
            done=log.done.keys(),
            finished=log.add,
        )
        for trajectory in log.done.values():
            grade(trajectory, bench.grader, bench.protocol)
            trajectory.reward = outcome_reward(trajectory)
        trajectories = log.finish(rollout.trajectories)
        progress.step_done()
    publish(out / "timings.json", json.dumps(rollout.record, indent=2) + "\n")
    return write_results(
        out,
        trajectories,
        bench.grader,
        config.seed,
        sets=len(heldout_sets(config.data.heldout)) > 1,
        model=bench.model_name,
        protocol=protocol,
        environment=environment(isolation=bench.isolation()),
    )


def _write_sweep(out: Path, calls: Sequence[int], results: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Write and return `sweep.json`: for each number of calls the results, and what they gain over the first."""
    first, *others = [list(read_trajectories(sweep_folder(out, n) / "samples.jsonl")) for n in calls]
    gains = [None, *(compare(first, other, seed=seed) for other in others)]
    left_out = ("protocol", "environment")
    rows = [
        {"calls": n} | {key: value for key, value in result.items() if key not in left_out} | {"gain": gain}
        for n, result, gain in zip(calls, results, gains, strict=True)
    ]
    protocol = results[0]["protocol"] | {"calls": list(calls)}
    sweep = {"by_calls": rows, "protocol": protocol, "environment": results[0]["environment"]}
    publish(out / "sweep.json", json.dumps(sweep, indent=2) + "\n")
    return sweep
