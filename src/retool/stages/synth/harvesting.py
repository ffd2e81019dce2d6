"""Harvest: a model solves the problems end to end with the interpreter, and its verified successes are the traces.

Whole trajectories of a model teach better than stitched ones (DemyAgent, arXiv 2510.11701).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from retool.config.schema import Config
from retool.errors import UsageError
from retool.learner.policy import load_policy
from retool.protocol import Protocol
from retool.rollout.grading import reasoning
from retool.stages.progress import Progress
from retool.stages.synth.rewriting import wants_code
from retool.stages.synth.row import Outcome, Row
from retool.stages.synth.stage import BatchWork
from retool.stages.workbench import open_workbench, prepare_torch
from retool.traces import Reason, Rejection
from retool.traces.harvest import trace_of
from retool.types import Trace, Trajectory

BATCH = 32  # problems that are rolled out together; what a kill may cost


@asynccontextmanager
async def harvest_work(config: Config, rows: Sequence[Row]) -> AsyncIterator[BatchWork]:
    """Rolls out `synth.harvest.samples` responses for each problem of a batch."""
    if not config.model.path:
        raise UsageError("synth.rewrite=harvest needs a model to roll out: name one with --model (model.path)")
    prepare_torch(config)
    model, tokenizer = load_policy(config.model)
    problems = [row.problem for row in rows]
    async with open_workbench(
        config, model, tokenizer, problems, model_name=str(config.model.path), arm="harvest"
    ) as bench:

        async def work(batch: Sequence[Row]) -> Sequence[Outcome]:
            samples = config.synth.harvest.samples
            with Progress("harvest", 1) as progress:
                rollout = await bench.roll_out(
                    [row.problem for row in batch],
                    step=0,
                    samples=samples,
                    sampling=config.sampling,
                    progress=progress,
                )
                progress.step_done()
            ended = rollout.trajectories
            groups = [ended[begin : begin + samples] for begin in range(0, len(ended), samples)]
            return [select(config, row, group, bench.protocol) for row, group in zip(batch, groups, strict=True)]

        yield work


def select(config: Config, row: Row, trajectories: Sequence[Trajectory], protocol: Protocol) -> Outcome:
    """The successes to keep of a problem, or why there is none."""
    low, high = config.synth.harvest.pass_rate
    rate = sum(trajectory.correct for trajectory in trajectories) / len(trajectories)
    if not low <= rate <= high:
        reason = Reason.TOO_HARD if rate < low else Reason.TOO_EASY
        return Rejection(reason, f"{rate:.0%} of {len(trajectories)} responses are right")
    successes = [_trace(trajectory, protocol) for trajectory in trajectories if trajectory.correct]
    traces = list(dict.fromkeys(trace for trace in successes if trace is not None))
    if not traces:
        return Rejection(Reason.NEVER_SOLVED, f"{len(successes)} of {len(trajectories)} right, none with sound calls")
    if wants_code(config, row):
        traces = [trace for trace in traces if trace.has_code]
        if not traces:
            return Rejection(Reason.NO_CALL, f"none of {len(successes)} right responses calls code")
    return replace(row, traces=tuple(traces[: config.synth.harvest.per_problem]), pass_rate=rate)


def _trace(trajectory: Trajectory, protocol: Protocol) -> Trace | None:
    words = reasoning(trajectory, protocol)
    last = (trajectory.spans[-1].ids or [None])[-1]
    if last in protocol.eos_ids:
        words[-1] = words[-1].removesuffix(protocol.decode([last]))
    return trace_of(trajectory, words)
