"""Reinforcement learning: sample with live code execution, grade, compare, update, evaluate, save.

Step N samples from the weights of checkpoint N − 1, learns, and leaves checkpoint N.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retool.analysis import alarms, health
from retool.config.schema import Config
from retool.errors import UsageError
from retool.learner.adapters import has_adapters
from retool.learner.checkpoint import latest_resumable, list_checkpoints, load_checkpoint
from retool.learner.compatibility import check_learnable
from retool.learner.distributed import Processes
from retool.learner.learner import Learner
from retool.learner.objective import make_objective
from retool.learner.policy import load_policy, load_trainable
from retool.objectives.selection import void_turns
from retool.runs import EVENTS, RunFolder, environment
from retool.stages.bench import Rollout, RolloutBench
from retool.stages.progress import Progress
from retool.stages.training.guards import refuse_endless_nan, refuse_overload
from retool.stages.training.keeping import Keeper, Unfinished
from retool.stages.training.logbook import Logbook
from retool.stages.training.loggers import check_loggers, last_logged, open_loggers
from retool.stages.training.passes import problems_of_run
from retool.stages.training.processes import to_be_sharded, training_processes
from retool.stages.training.refill import check_refill, roll_out_step
from retool.stages.training.stopping import Stopping
from retool.stages.workbench import open_workbench, prepare_torch
from retool.types import Problem, Trajectory


async def run_rl(
    config: Config,
    training: Sequence[Problem],
    heldout: Sequence[Problem],
    out: Path,
    arm: str,
    elsewhere: Callable[[Processes], RolloutBench] | None = None,
) -> Path:
    """Train `model.path`; returns the last checkpoint. Goes on where a run in `out` stopped. SIGTERM cancels the
    rollout at hand, saves the last step that was learned from, and raises `Stopped`.

    Samples in this process, or `elsewhere`, for what the processes that train together are to learn from."""
    if config.model.path is None:
        raise UsageError(
            "RL starts from a model that can already answer: give --model, such as a checkpoint of `retool sft`"
        )
    rl = config.rl
    if len(training) < rl.prompts:
        raise UsageError(
            f"a step asks rl.prompts={rl.prompts} different problems, and there are {len(training)} to train on: lower "
            "rl.prompts, raise rl.samples for more answers to each, or bring more problems"
        )
    objective = make_objective(rl, config.rollout.max_tokens)
    check_refill(rl, objective)
    check_loggers(config.log_to)
    prepare_torch(config)

    with training_processes(config.model) as processes, Stopping(asyncio.current_task(), processes) as stop:
        run = RunFolder(out, processes.is_writer)
        run.open(config, environment(arm=arm, problems=len(training), heldout=len(heldout), processes=processes.size))
        resumed = processes.once(lambda: latest_resumable(run.checkpoints))
        source = to_be_sharded(config.model, processes)
        model, tokenizer = load_trainable(source, config.seed, resumed)
        check_learnable(model)
        reference = load_policy(source)[0] if rl.kl and resumed and not has_adapters(model) else None
        sampled = None if elsewhere else processes.replicate(model)
        learner = Learner(model, objective, rl, config.sampling, config.seed, reference, processes)
        first, unfinished = 0, None
        if resumed:
            state = load_checkpoint(resumed, learner.trained)
            first, unfinished = state["step"], state["unfinished"]
        logged = last_logged(run)
        processes.once(lambda: run.rewind(first, first - 1 if unfinished else first))
        keeper = Keeper(run, rl, learner.trained, tokenizer, first)

        watched = heldout[: rl.eval_problems]
        names = {"model_name": config.model.path, "arm": arm, "processes": processes}
        problems = problems_of_run(config, training, heldout)
        opened = open_workbench(config, sampled, tokenizer, problems, **names) if sampled else None
        async with opened or nullcontext(elsewhere(processes)) as bench:
            with (
                open_loggers(config, run, first, logged) as loggers,
                Progress(f"RL ({arm})", rl.steps, first) as progress,
                stop.saving(keeper.save_now),
            ):
                steps = _Steps(config, run, bench, learner, keeper, Logbook(run, loggers, alarms), progress, watched)
                await bench.take_weights(first, learner.trained)
                if rl.eval_every and first == 0:
                    await steps.evaluate(0)
                if unfinished:
                    await steps.finish(first, unfinished)
                for step in range(first + 1, rl.steps + 1):
                    row = await steps.learn(step, training)
                    await steps.finish(step, row)
    return run.checkpoints / f"step-{rl.steps}"


@dataclass(frozen=True, slots=True)
class _Steps:
    """One step after the other, each in two halves: what was sampled is learned from, then what came of it is looked at
    and kept. Between them a run can be stopped, and goes on with the second half."""

    config: Config
    run: RunFolder
    bench: RolloutBench
    learner: Learner
    keeper: Keeper
    logbook: Logbook
    progress: Progress
    watched: Sequence[Problem]

    async def learn(self, step: int, training: Sequence[Problem]) -> Unfinished:
        """Sample, grade, compare and update; returns what is known of the step's rows."""
        clock, objective = _Clock(), self.learner.objective
        rollout, rounds = await roll_out_step(self.bench, training, objective, self.run, step, self.progress)
        trajectories = rollout.trajectories
        refuse_overload(self.config, trajectories)
        timings = {"began": clock.began} | clock.lap("rollout", sum(t.tokens() for t in trajectories)) | rollout.record
        learned, record = self.learner.update(trajectories, step)
        timings |= clock.lap("update", sum(t.tokens() + len(t.prompt_ids or ()) for t in trajectories))
        self.run.write_trajectories(step, trajectories, record.arrays())

        metrics = _state_of(trajectories) | learned | ({"refill_rounds": rounds} if self.config.rl.refill else {})
        metrics |= {EVENTS + name: count for name, count in rollout.events.items()}
        row = {"metrics": metrics, "timings": timings}
        self.keeper.learned(step, row)
        await self.bench.take_weights(step, self.learner.trained)
        timings |= clock.lap("weights")
        return row

    async def finish(self, step: int, row: Unfinished) -> None:
        """Evaluate if it is time to, write the rows, and save the weights if they are to stay."""
        metrics, timings, rl = row["metrics"], row["timings"], self.config.rl
        if rl.eval_every and (step % rl.eval_every == 0 or step == rl.steps):
            clock = _Clock()
            evaluation = await self.evaluate(step)
            metrics["heldout_accuracy"] = health(evaluation.trajectories)["accuracy"]
            timings |= clock.lap("evaluation") | {f"heldout_{name}": n for name, n in evaluation.record.items()}
        self.logbook.write(step, metrics, timings)
        refuse_endless_nan(self.logbook.rows, dict(list_checkpoints(self.run.checkpoints)), self.config.model.path)
        self.keeper.finished(step, metrics.get("heldout_accuracy"))
        self.progress.step_done(f"reward {metrics['reward']:+.2f}, calls {metrics['tool_call_rate']:.2f}")

    async def evaluate(self, step: int) -> Rollout:
        """One sample of each watched problem at the evaluation's own settings, kept for the behaviour curves."""
        rollout = await self.bench.roll_out(
            self.watched,
            step=step,
            samples=1,
            sampling=self.config.eval.sampling,
            progress=self.progress,
            arm=f"{self.bench.arm}/heldout",
        )
        self.run.write_evaluation(step, rollout.trajectories)
        return rollout


def _state_of(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    void = void_turns(trajectories, np.random.default_rng(0)).dropped  # draws nothing
    return health(trajectories) | {"void_turn_rate": len(void) / max(1, len(trajectories))}


class _Clock:
    """Seconds by phase of one step, which `began` at that unix time."""

    def __init__(self) -> None:
        self.began = time.time()
        self._last = time.perf_counter()

    def lap(self, name: str, tokens: int | None = None) -> dict[str, float]:
        """The seconds since the last lap, and the tokens a second of a phase that has tokens."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        rate = {} if tokens is None else {f"{name}_tokens_per_second": tokens / max(seconds, 1e-9)}
        return {f"{name}_seconds": seconds, **rate}
