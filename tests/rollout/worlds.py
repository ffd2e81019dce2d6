"""What rollouts are tried in: a sampler that takes its time and keeps account, a sandbox that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from retool.config.sampling import SamplingConfig
from retool.config.schema import ProtocolConfig, RolloutConfig
from retool.protocol import Protocol, make_protocol
from retool.rollout.agent import Agent, Task
from retool.rollout.meter import Meter
from retool.sampling.sampler import SamplingParams, Segment, StopFunction
from retool.sampling.scripted import ScriptedHandle, ScriptedSampler
from retool.sandbox import Result
from retool.types import CallStatus, Problem
from small_tokenizers import TOKENIZERS

PROTOCOLS = ["tags", "native", "fenced"]
END = "<|im_end|>"
PROBLEM = Problem("p", "What is 12 times 7?", "84", "test")


def protocol_of(name: str, tokenizer: str = "special", **settings: object) -> Protocol:
    return make_protocol(ProtocolConfig(name=name, instruction="", **settings), TOKENIZERS[tokenizer])


def ids_of(protocol: Protocol, text: str) -> list[int]:
    """As a model writes it: every control token in `text` is one."""
    return protocol.codec.tokenizer.encode(text, add_special_tokens=False)


def call(protocol: Protocol, code: str) -> str:
    """A turn that calls the interpreter."""
    return "Hm.\n" + protocol.write_call(code) + END * protocol.ends_turn


def task(protocol: Protocol, sample: int = 0, problem: Problem = PROBLEM) -> Task:
    return Task(problem, protocol.prompt_ids(problem.text), "ReTool", 0, 1, sample, "scripted")


class PacedSampler(ScriptedSampler):
    """A token every `pace` seconds. Knows which handles are out; after `failing_after` segments it fails."""

    def __init__(
        self, script: Callable[[list[int]], Sequence[int]], pace: float = 0.0, failing_after: int | None = None
    ):
        super().__init__(script, pace)
        self.failing_after = failing_after
        self.segments = 0
        self.open: list[ScriptedHandle] = []

    async def extend(
        self,
        handle: ScriptedHandle | None,
        ids: Sequence[int],
        params: SamplingParams,
        stop: StopFunction,
        key: int,
    ) -> Segment:
        self.segments += 1
        if self.failing_after is not None and self.segments > self.failing_after:
            raise RuntimeError("the sampler is on fire")
        segment = await super().extend(handle, ids, params, stop, key)
        if handle is None:
            self.open.append(segment.handle)
        return segment

    def release(self, handle: ScriptedHandle) -> None:
        self.open = [other for other in self.open if other is not handle]
        super().release(handle)


class FakeSandbox:
    """Answers with what `answer` makes of the code. Knows how many calls and sessions are open."""

    def __init__(self, answer: Callable[[str], Awaitable[Result]]):
        self._answer = answer
        self.running = self.sessions = 0

    async def run(self, code: str, **_: object) -> Result:
        self.running += 1
        try:
            return await self._answer(code)
        finally:
            self.running -= 1

    def session(self, *_: object, **__: object) -> FakeSandbox:
        return self

    def __enter__(self) -> FakeSandbox:
        self.sessions += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.sessions -= 1


def prints(text: str) -> FakeSandbox:
    async def answer(_: str) -> Result:
        return Result(CallStatus.OK, text)

    return FakeSandbox(answer)


def sleeps(seconds: float) -> FakeSandbox:
    async def answer(_: str) -> Result:
        await asyncio.sleep(seconds)
        return Result(CallStatus.OK, "84", wall_s=seconds)

    return FakeSandbox(answer)


def says(protocol: Protocol, *turns: str) -> Callable[[list[int]], list[int]]:
    """A script: which turn it is follows from what was said before, so that trajectories can share it."""
    written = [ids_of(protocol, turn) for turn in turns]

    def script(ids: list[int]) -> list[int]:
        text = protocol.decode(ids)
        said = 0
        for turn in turns:
            found = text.find(turn)
            if found < 0:
                break
            text, said = text[found + len(turn) :], said + 1
        return written[said]

    return script


def agent(
    protocol: Protocol, sampler: ScriptedSampler, sandbox: object, meter: Meter | None = None, **limits: object
) -> Agent:
    rollout = RolloutConfig.model_validate({"max_tokens": 600, "max_calls": 4} | limits)
    return Agent(sampler, protocol, sandbox, rollout, SamplingConfig(), meter=meter or Meter())
