"""Putting an agent together from a config: model, protocol, engine, sandbox, grader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import Config, SamplingConfig
from retool.errors import UsageError
from retool.grading import Grader
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.collect import collect
from retool.sampling.engine import Engine
from retool.sampling.sampler import Sampler
from retool.sandbox import Sandbox
from retool.stages.progress import Progress
from retool.types import Problem, Trajectory


@dataclass(frozen=True, slots=True)
class Workbench:
    """What rolls out trajectories of one model: the parts, and the names that go into the records."""

    config: Config
    sampler: Sampler
    protocol: Protocol
    sandbox: Sandbox | None
    grader: Grader
    model_name: str
    arm: str

    async def roll_out(
        self,
        problems: Sequence[Problem],
        *,
        step: int,
        samples: int,
        sampling: SamplingConfig,
        progress: Progress,
        interpreter: bool = True,
        arm: str | None = None,
    ) -> list[Trajectory]:
        """`samples` graded trajectories of each problem, in order."""
        agent = Agent(self.sampler, self.protocol, self.sandbox, self.config.rollout, sampling, interpreter)
        tasks = [
            Task(problem, prompt_ids, arm or self.arm, self.config.seed, step, sample, self.model_name)
            for problem in problems
            for prompt_ids in [self.protocol.prompt_ids(problem.text)]
            for sample in range(samples)
        ]
        progress.begin_rollout(len(tasks))
        return await collect(agent, tasks, self.grader, progress.trajectory_done)

    def isolation(self) -> dict[str, Any] | None:
        return self.sandbox.isolation if self.sandbox else None


@asynccontextmanager
async def open_workbench(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    problems: Sequence[Problem],
    *,
    model_name: str,
    arm: str,
) -> AsyncIterator[Workbench]:
    """A workbench whose engine has room for the longest prompt of `problems`. The sandbox runs while it is open."""
    protocol = make_protocol(config.protocol, tokenizer)
    engine = Engine(
        model,
        rows=config.rollout.rows,
        capacity=_capacity(config, model, protocol, problems),
        prefill_chunk=config.rollout.prefill_chunk,
        deterministic=config.rollout.deterministic,
    )
    sandbox = None if protocol.name == "text" else Sandbox(config.sandbox)
    with Grader() as grader:
        bench = Workbench(config, engine, protocol, sandbox, grader, model_name, arm)
        if sandbox is None:
            yield bench
        else:
            async with sandbox:
                yield bench


def _capacity(config: Config, model: PreTrainedModel, protocol: Protocol, problems: Sequence[Problem]) -> int:
    """Tokens of the longest prompt and response. Raises UsageError if the model's context is shorter."""
    longest = max(problems, key=lambda problem: len(protocol.prompt_ids(problem.text)))
    prompt = len(protocol.prompt_ids(longest.text))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and prompt + config.rollout.max_tokens > context:
        raise UsageError(
            f"the prompt of problem {longest.id!r} has {prompt} tokens; with "
            f"rollout.max_tokens={config.rollout.max_tokens} that is more than the model's context "
            f"of {context}: lower rollout.max_tokens or leave the problem out"
        )
    return prompt + config.rollout.max_tokens


def draw_problems(problems: Sequence[Problem], count: int, seed: int, step: int) -> list[Problem]:
    """The problems of one step: the set in a new random order each pass, a function of seed and step alone."""
    first = step * count
    orders: dict[int, np.ndarray] = {}
    drawn = []
    for position in range(first, first + count):
        epoch, place = divmod(position, len(problems))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(len(problems))
        drawn.append(problems[int(orders[epoch][place])])
    return drawn


def prepare_torch(config: Config) -> None:
    """Threads and determinism, before any model is made."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.rollout.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(config.seed)
