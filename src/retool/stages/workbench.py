"""Putting an agent together from a config: model, protocol, engine, sandbox, grader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.errors import UsageError
from retool.files import publish
from retool.grading import Grader
from retool.objectives.rewards import Reward, outcome_reward
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.collect import collect
from retool.rollout.meter import Meter
from retool.rollout.timeline import Timeline
from retool.sampling.budget import default_cache_bytes
from retool.sampling.engine import Engine
from retool.sampling.sampler import Sampler
from retool.sandbox import Sandbox
from retool.stages.progress import Progress
from retool.types import Problem, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rollout:
    """A batch of graded trajectories, and what it cost: `Meter.record`, the counters of the sampler, and `occupancy`,
    the share of `rollout.rows` that took part in a decode step, if the sampler says."""

    trajectories: list[Trajectory]
    record: dict[str, float]


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
        oversample: float = 1.0,
        rewards: Sequence[Reward] = (outcome_reward,),
        timeline: Path | None = None,
    ) -> Rollout:
        """`samples` graded trajectories of each problem, in order: the first ones of `oversample` times as many. With
        `rollout.timeline`, who did what when is written to the file `timeline`."""
        recorded = Timeline() if timeline and self.config.rollout.timeline else None
        meter = Meter(recorded, progress.rollout_changed)
        agent = Agent(self.sampler, self.protocol, self.sandbox, self.config.rollout, sampling, interpreter, meter)
        tasks = [
            Task(problem, prompt_ids, arm or self.arm, self.config.seed, step, sample, self.model_name)
            for problem in problems
            for prompt_ids in [self.protocol.prompt_ids(problem.text)]
            for sample in range(ceil(round(samples * oversample, 6)))
        ]
        progress.begin_rollout(len(problems) * samples, self.sampler.cache_in_use)
        self.sampler.on_phase = recorded and recorded.add_phase
        trajectories = await collect(agent, tasks, self.grader, samples, rewards)
        if recorded:
            publish(timeline, recorded.to_json())
        record = meter.record() | self.sampler.take_stats()
        return Rollout(trajectories, record | occupancy(record, self.config.rollout.rows))

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
    """A workbench whose sampler has room for the longest prompt of `problems`. The sandbox runs while it is open."""
    protocol = make_protocol(config.protocol, tokenizer)
    capacity = _capacity(config, model, protocol, problems)
    sandbox = None if protocol.name == "text" else Sandbox(config.sandbox)
    async with _open_sampler(config, model, capacity) as sampler, sandbox or nullcontext():
        with Grader() as grader:
            yield Workbench(config, sampler, protocol, sandbox, grader, model_name, arm)


@asynccontextmanager
async def _open_sampler(config: Config, model: PreTrainedModel, capacity: int) -> AsyncIterator[Sampler]:
    """The sampler that `sampler.backend` names, for trajectories of up to `capacity` tokens."""
    rollout = config.rollout
    if config.sampler.backend == "engine":
        yield Engine(
            model,
            rows=rollout.rows,
            capacity=capacity,
            prefill_chunk=rollout.prefill_chunk,
            deterministic=rollout.deterministic,
            cache_bytes=_cache_bytes(config, model),
        )
        return
    if rollout.deterministic:
        raise UsageError(
            "sampler.backend=vllm cannot give the same bytes twice, which rollout.deterministic=true asks for; take "
            "sampler.backend=engine or rollout.deterministic=false"
        )
    try:
        from retool.sampling.vllm import open_vllm
    except ModuleNotFoundError as error:
        raise UsageError(f"sampling by vLLM needs the library {error.name}: pip install 'retool[vllm]'") from error
    async with open_vllm(config.sampler, model, sequences=rollout.rows, context=capacity) as sampler:
        yield sampler


def _cache_bytes(config: Config, model: PreTrainedModel) -> int | None:
    """The budget of the engine's cache; None: what its rows take, for what is free now must not decide on the bytes."""
    if config.rollout.cache_mib is not None:
        return config.rollout.cache_mib << 20
    return None if config.rollout.deterministic else default_cache_bytes(model.device)


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


def draw_in_passes(items: Sequence[T], count: int, seed: int, step: int) -> list[T]:
    """The items of one step, counted from 0: all of them in a new random order each pass, a function of seed and step
    alone."""
    first = step * count
    orders: dict[int, np.ndarray] = {}
    drawn = []
    for position in range(first, first + count):
        epoch, place = divmod(position, len(items))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(len(items))
        drawn.append(items[int(orders[epoch][place])])
    return drawn


def occupancy(record: Mapping[str, float], rows: int) -> dict[str, float]:
    """`occupancy` from the counters of a sampler that counts decode steps."""
    if not record.get("row_steps"):
        return {}
    return {"occupancy": record["row_steps"] / (record["decode_steps"] * rows)}


def prepare_torch(config: Config) -> None:
    """Threads and determinism, before any model is made."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.rollout.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(config.seed)
