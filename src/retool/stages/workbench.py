"""Putting an agent together from a config: model, protocol, engine, sandbox, grader."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.sampling import SamplingConfig
from retool.config.schema import Config, SamplerConfig
from retool.errors import UsageError
from retool.files import publish
from retool.grading import Grader
from retool.kernels.memory import keep_freed_memory
from retool.learner.adapters import merged_parameters
from retool.learner.distributed import ALONE, Processes, merge_parts
from retool.learner.trained import Trained
from retool.objectives.rewards import Reward, outcome_reward
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.collect import collect
from retool.rollout.meter import Meter
from retool.rollout.timeline import Timeline
from retool.sampling.budget import default_cache_bytes
from retool.sampling.engine import Engine
from retool.sampling.sampler import Sampler
from retool.sandbox import Executor, Sandbox
from retool.stages.bench import Rollout, RolloutBench, occupancy, settled
from retool.stages.progress import Progress
from retool.types import Problem, Trajectory


@dataclass(frozen=True, slots=True)
class Workbench(RolloutBench):
    """What rolls out trajectories of one model: the parts, and the names that go into the records. Of processes that
    train together, each rolls out a part of the problems."""

    config: Config
    model: PreTrainedModel
    sampler: Sampler
    protocol: Protocol
    sandbox: Executor | None
    grader: Grader
    model_name: str
    arm: str
    processes: Processes

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
        calls: int | None = None,
        done: Collection[tuple[str, int]] = (),
        finished: Callable[[Trajectory], None] | None = None,
    ) -> Rollout:
        """See `RolloutBench.roll_out`; the timeline is that of the process that writes.

        With `calls`, a response that has made so many cannot open another one. What is `done`, by problem id and
        sample, is left out; `finished` is told of each trajectory when it has ended, ungraded."""
        rollout = self.config.rollout if calls is None else self.config.rollout.model_copy(update={"max_calls": calls})
        own = self.processes.part(problems)
        recorded = Timeline() if timeline and self.config.rollout.timeline and self.processes.is_writer else None
        meter = Meter(recorded, progress.rollout_changed)
        agent = Agent(self.sampler, self.protocol, self.sandbox, rollout, sampling, interpreter, meter, calls)
        tasks = [
            Task(problem, prompt_ids, arm or self.arm, self.config.seed, step, sample, self.model_name)
            for problem in own
            for prompt_ids in [self.protocol.prompt_ids(problem.text)]
            for sample in range(ceil(round(samples * oversample, 6)))
            if (problem.id, sample) not in done
        ]
        progress.begin_rollout(len(own) * samples - len(done), self.sampler.cache_in_use)
        self.sampler.on_phase = recorded and recorded.add_phase
        parts = await settled(self.processes, collect(agent, tasks, self.grader, samples, rewards, finished))
        groups = merge_parts([[part[i : i + samples] for i in range(0, len(part), samples)] for part in parts])
        if recorded:
            publish(timeline, recorded.to_json())
        record = self.processes.add_up(meter.record() | self.sampler.take_stats())
        trajectories = [trajectory for group in groups for trajectory in group]
        return Rollout(trajectories, record | occupancy(record, self.config.rollout.rows))

    async def begin(self, *_: object, **__: object) -> None:
        """Nobody is there to do it while this process learns."""

    async def take_weights(self, version: int, trained: Trained) -> None:
        trained.copy_to(self.model)
        await settled(self.processes, self.sampler.update(version, merged_parameters(self.model)))

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
    processes: Processes = ALONE,
    executor: AbstractAsyncContextManager[Executor] | None = None,
) -> AsyncIterator[Workbench]:
    """A workbench whose sampler has room for the longest prompt of `problems`. Its sandbox, or `executor` in place of
    one of its own, runs while it is open. Each of several processes has a whole model to sample from
    (`Processes.replicate`)."""
    protocol = make_protocol(config.protocol, tokenizer)
    capacity = _capacity(config, model, protocol, problems)
    opened = nullcontext() if protocol.name == "text" else executor or _sandbox(config)
    async with _open_sampler(config, model, capacity, processes) as sampler, opened as sandbox:
        with Grader() as grader:
            yield Workbench(config, model, sampler, protocol, sandbox, grader, model_name, arm, processes)


def _sandbox(config: Config) -> Sandbox:
    """One for this process. Without `sandbox.workers`, those on this machine (as torchrun says) share its cores."""
    sandbox = Sandbox(config.sandbox)
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.sandbox.workers is not None or sharing == 1:
        return sandbox
    return Sandbox(config.sandbox.model_copy(update={"workers": max(2, sandbox.workers // sharing)}))


@asynccontextmanager
async def _open_sampler(
    config: Config, model: PreTrainedModel, capacity: int, processes: Processes = ALONE
) -> AsyncIterator[Sampler]:
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
    servers = _own_servers(config.sampler, processes)
    async with open_vllm(servers, model, sequences=rollout.rows, context=capacity) as sampler:
        yield sampler


def _own_servers(config: SamplerConfig, processes: Processes) -> SamplerConfig:
    """Each of several processes gives its weights to servers that no other one uses."""
    if processes.size == 1:
        return config
    if config.vllm_python or len(config.urls) < processes.size:
        found = "sampler.vllm_python, which starts one" if config.vllm_python else f"{len(config.urls)}"
        raise UsageError(
            f"{processes.size} processes sample from vLLM servers of their own: start at least as many, and name them "
            f"in sampler.urls; found {found}"
        )
    return config.model_copy(update={"urls": tuple(processes.part(config.urls))})


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


def prepare_torch(config: Config) -> None:
    """Memory, threads and determinism, before any model is made."""
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.rollout.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(config.seed)
