"""Reinforcement learning: sample with live code execution, grade, compare, update, evaluate, save.

Step N samples from the weights of checkpoint N − 1, learns, and leaves checkpoint N.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retool.analysis import health
from retool.config.schema import Config
from retool.errors import RetoolError, UsageError
from retool.files import cannot_write
from retool.learner.checkpoint import drop_old_states, latest_resumable, load_state, save_checkpoint
from retool.learner.logprobs import check_head
from retool.learner.policy import load_policy
from retool.learner.ppo import LearnerRecord, PpoLearner
from retool.runs import RunFolder, environment
from retool.stages.progress import Progress
from retool.stages.workbench import Rollout, Workbench, draw_problems, open_workbench, prepare_torch
from retool.types import Problem, StopReason, Trajectory


async def run_rl(config: Config, training: Sequence[Problem], heldout: Sequence[Problem], out: Path, arm: str) -> Path:
    """Train `model.path` by PPO; returns the last checkpoint. Goes on where a run in `out` stopped."""
    if config.model.path is None:
        raise UsageError(
            "RL starts from a model that can already answer: give --model, such as a checkpoint of `retool sft`"
        )
    run, rl = RunFolder(out), config.rl
    run.open(config, environment(arm=arm, problems=len(training), heldout=len(heldout)))
    prepare_torch(config)

    resumed = latest_resumable(run.checkpoints)
    model, tokenizer = load_policy(config.model.model_copy(update={"path": str(resumed or config.model.path)}))
    check_head(model)
    learner = PpoLearner(model, rl, config.sampling, tokenizer.pad_token_id or 0, config.seed)
    first = 0
    if resumed:
        state = load_state(resumed)
        learner.load_state_dict(state["learner"])
        first = state["step"]
    run.rewind(first)

    watched = heldout[: rl.eval_problems]
    schedule = {step: draw_problems(training, rl.prompts, config.seed, step - 1) for step in range(1, rl.steps + 1)}
    occurring = list({problem.id: problem for drawn in [watched, *schedule.values()] for problem in drawn}.values())
    name = config.model.path
    async with open_workbench(config, model, tokenizer, occurring, model_name=name, arm=arm) as bench:
        with Progress(f"RL ({arm})", rl.steps, first) as progress:
            await bench.sampler.update(first, model.named_parameters())
            if rl.eval_every and first == 0:
                await _evaluate(bench, watched, run, 0, progress)
            for step in range(first + 1, rl.steps + 1):
                clock = _Clock()
                rollout = await bench.roll_out(
                    schedule[step],
                    step=step,
                    samples=rl.samples,
                    sampling=config.sampling,
                    progress=progress,
                    oversample=config.rollout.oversample,
                    timeline=run.timelines / f"step-{step}.json",
                )
                trajectories = rollout.trajectories
                _refuse_overload(config, trajectories)
                clock.lap("rollout")
                metrics, record = learner.update(trajectories, step)
                await bench.sampler.update(step, model.named_parameters())
                clock.lap("update")
                metrics = health(trajectories) | metrics
                costs = rollout.record
                if rl.eval_every and (step % rl.eval_every == 0 or step == rl.steps):
                    evaluation = await _evaluate(bench, watched, run, step, progress)
                    metrics["heldout_accuracy"] = health(evaluation.trajectories)["accuracy"]
                    costs |= {f"heldout_{name}": value for name, value in evaluation.record.items()}
                    clock.lap("evaluation")
                _write(run, step, trajectories, record)
                run.log(step, metrics, clock.laps | costs)
                if step % rl.save_every == 0 or step == rl.steps:
                    save_checkpoint(run.checkpoints, step, model, tokenizer, {"learner": learner.state_dict()})
                    drop_old_states(run.checkpoints, rl.keep_states)
                progress.step_done(f"reward {metrics['reward']:+.2f}, calls {metrics['tool_call_rate']:.2f}")
    return run.checkpoints / f"step-{rl.steps}"


async def _evaluate(
    bench: Workbench, problems: Sequence[Problem], run: RunFolder, step: int, progress: Progress
) -> Rollout:
    """One sample of each watched problem at the evaluation's own sampling settings, kept for the behaviour curves."""
    rollout = await bench.roll_out(
        problems,
        step=step,
        samples=1,
        sampling=bench.config.eval.sampling,
        progress=progress,
        arm=f"{bench.arm}/heldout",
    )
    run.write_evaluation(step, rollout.trajectories)
    return rollout


def _refuse_overload(config: Config, trajectories: Sequence[Trajectory]) -> None:
    """What the sandbox lost depends on the machine's load; in deterministic mode that must not reach the weights."""
    lost = [trajectory for trajectory in trajectories if trajectory.stop is StopReason.SANDBOX]
    if lost and config.rollout.deterministic:
        raise RetoolError(
            f"the sandbox lost {len(lost)} calls, and in deterministic mode a step cannot go on without them; free the "
            "machine and run the same command again, it goes on from the last checkpoint"
        )


def _write(run: RunFolder, step: int, trajectories: Sequence[Trajectory], record: LearnerRecord) -> None:
    path = run.write_trajectories(step, trajectories).with_suffix(".learner.npz")
    try:
        np.savez_compressed(path, **record.arrays())
    except OSError as error:
        raise cannot_write(path, error) from error


class _Clock:
    """Seconds by phase of one step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"{name}_seconds"] = now - self._last
        self._last = now
