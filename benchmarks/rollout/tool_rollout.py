"""Rollouts with calls: the agent loop on the engine, next to slower tools, to vLLM and to TRL's `GRPOTrainer`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from retool.config.sampling import SamplingConfig
from retool.config.schema import ModelConfig, ProtocolConfig, RolloutConfig, SamplerConfig
from retool.learner.policy import load_policy
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.sampling.engine import Engine
from retool.sampling.sampler import Sampler
from retool.sandbox import Result, Sandbox
from retool.types import Author, Problem, Trajectory
from rollout.peer import Peer, children, say, stopped
from rollout.two_turn_checkpoint import INSTRUCTION

SAMPLES = 8
ROLLOUT = RolloutConfig(max_tokens=256, max_calls=4, rows=64)
SLEEP_SECONDS = 0.5
LEARNING_RATE = 1e-6
VLLM_ARGS = ("--gpu-memory-utilization", "0.15")  # of the main memory, on a CPU


@dataclass(frozen=True, slots=True)
class Measured:
    """One rollout: its wall clock, and what it wrote."""

    seconds: float
    completions: int
    model_tokens: int
    calling_turns: list[int]  # by completion

    @property
    def tokens_per_second(self) -> float:
        return self.model_tokens / self.seconds

    @property
    def completions_per_second(self) -> float:
        return self.completions / self.seconds

    def __str__(self) -> str:
        several = mean(turns >= 2 for turns in self.calling_turns)
        return (
            f"{self.seconds:.1f} s, {self.completions_per_second:.2f} completions/s, "
            f"{self.tokens_per_second:.0f} model tokens/s, {self.model_tokens / self.completions:.0f} a completion, "
            f"{mean(self.calling_turns):.2f} turns with calls, in {several:.0%} two or more"
        )


class SlowSandbox:
    """The sandbox behind a tool that takes `SLEEP_SECONDS` longer without needing a CPU, such as a search engine."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box

    async def run(self, code: str, **options: Any) -> Result:
        await asyncio.sleep(SLEEP_SECONDS)
        return await self._box.run(code, **options)


class Bench:
    """Our side: the checkpoint, its protocol and an engine that has room for all trajectories."""

    def __init__(self, model: Path, problems: Sequence[Problem]) -> None:
        self.problems = problems
        policy, tokenizer = load_policy(ModelConfig(path=str(model), device="cpu"))
        self.protocol: Protocol = make_protocol(ProtocolConfig(name="native", instruction=INSTRUCTION), tokenizer)
        longest = max(len(self.protocol.prompt_ids(problem.text)) for problem in problems)
        self.capacity = longest + ROLLOUT.max_tokens
        self.engine = Engine(policy, rows=ROLLOUT.rows, capacity=self.capacity, prefill_chunk=ROLLOUT.prefill_chunk)

    async def roll_out(
        self, sampler: Sampler, sandbox: Any, step: int, problems: Sequence[Problem] | None = None
    ) -> tuple[Measured, list[Trajectory]]:
        """`SAMPLES` trajectories of each problem, timed from the texts of the problems on.

        The same step has the same random numbers. As in training no prompt of the step before is of use any more.
        """
        await sampler.update(step + 2, self.engine.model.named_parameters())
        began = time.perf_counter()
        agent = Agent(sampler, self.protocol, sandbox, ROLLOUT, SamplingConfig())
        tasks = [
            Task(problem, prompt_ids, "benchmark", 0, step, sample, "two-turn")
            for problem in problems or self.problems
            for prompt_ids in [self.protocol.prompt_ids(problem.text)]
            for sample in range(SAMPLES)
        ]
        trajectories = await asyncio.gather(*map(agent.run, tasks))
        seconds = time.perf_counter() - began
        turns = [len({call.span for call in trajectory.calls}) for trajectory in trajectories]
        tokens = sum(trajectory.tokens(Author.MODEL) for trajectory in trajectories)
        return Measured(seconds, len(trajectories), tokens, turns), trajectories


async def compare(
    bench: Bench, trl_python: Path | None, vllm_python: Path | None, threads: int, rounds: int
) -> dict[str, float | None]:
    """The figures with calls; all systems take their turn in every round. None for those whose peer is not there."""
    over_trl, over_vllm, slow_over_fast, excess = [], [], [], []
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(Sandbox())
        trl = stack.enter_context(start_trl(bench, trl_python, threads)) if trl_python else None
        others = children()
        vllm = await stack.enter_async_context(start_vllm(bench, vllm_python)) if vllm_python else None
        servers = children() - others
        for sampler in filter(None, (bench.engine, vllm)):
            await bench.roll_out(sampler, box, -1, bench.problems[:1])
        for step in range(rounds):
            with stopped(servers):
                bench.engine.take_stats()
                fast, trajectories = await bench.roll_out(bench.engine, box, step)
                excess.append(computed_beyond_spliced(bench.engine.take_stats(), trajectories))
                say(f"ours: {fast}; {excess[-1]:.2f} tokens computed after a call beyond its result")
                slow, _ = await bench.roll_out(bench.engine, SlowSandbox(box), step)
                say(f"ours, each call {SLEEP_SECONDS} s slower: {slow}")
            slow_over_fast.append(slow.tokens_per_second / fast.tokens_per_second)
            if vllm:
                theirs, _ = await bench.roll_out(vllm, box, step)
                say(f"vLLM: {theirs}")
                over_vllm.append(fast.tokens_per_second / theirs.tokens_per_second)
            if trl:
                with stopped(servers):
                    theirs = Measured(
                        **trl.ask({"prompts": len(bench.problems), "samples": SAMPLES, "seed": step, "learn": False})
                    )
                say(f"TRL: {theirs}")
                over_trl.append(fast.completions_per_second / theirs.completions_per_second)
    return {
        "vs_trl": median(over_trl) if over_trl else None,
        "vs_vllm_cpu": median(over_vllm) if over_vllm else None,
        "slow_tool_cost": 1 - median(slow_over_fast),
        "prefill_over_spliced_tokens": max(excess),
    }


def computed_beyond_spliced(stats: dict[str, float], trajectories: Sequence[Trajectory]) -> float:
    """Tokens that the engine computed after calls beyond the spliced results, per result.

    Of all tokens that went through the model, those belong to something else that prompts needed (less what the group
    shared), and those that were fed to get the next token of a segment, all but the first.
    """
    computed = stats["prefilled_tokens"] + stats["fed_tokens"] + stats["sampled_tokens"]
    prompts = sum(len(trajectory.prompt_ids or ()) for trajectory in trajectories) - stats["reused_tokens"]
    spans = [span for trajectory in trajectories for span in trajectory.spans]
    decoded = sum(len(span.ids or ()) - 1 for span in spans if span.author is Author.MODEL)
    results = [len(span.ids or ()) for span in spans if span.author is Author.INTERPRETER]
    return (computed - prompts - decoded - sum(results)) / len(results)


def start_vllm(bench: Bench, python: Path) -> AbstractAsyncContextManager[Sampler]:
    """A server with vLLM's default settings, but for the memory, of which it would take all that there is."""
    from retool.sampling.vllm import open_vllm  # needs aiohttp, which the other figures do not

    config = SamplerConfig(backend="vllm", vllm_python=str(python), vllm_args=VLLM_ARGS)
    return open_vllm(config, bench.engine.model, sequences=ROLLOUT.rows, context=bench.capacity)


@contextmanager
def start_trl(bench: Bench, python: Path, threads: int) -> Iterator[Peer]:
    content = [f"{INSTRUCTION}\n\n{problem.text}" for problem in bench.problems]
    peer = Peer(
        python,
        Path(__file__).with_name("trl_peer.py"),
        threads,
        {
            "model": str(bench.engine.model.name_or_path),
            "prompts": [[{"role": "user", "content": text}] for text in content],
            "prompt_ids": [bench.protocol.prompt_ids(problem.text) for problem in bench.problems],
            "samples": SAMPLES,
            "max_tokens": ROLLOUT.max_tokens,
            "max_calls": ROLLOUT.max_calls,
            "threads": threads,
            "learning_rate": LEARNING_RATE,
        },
    )
    say(f"peer: {peer.facts}")
    peer.ask({"prompts": 1, "samples": SAMPLES, "seed": 0, "learn": False})
    yield peer
    peer.close()
