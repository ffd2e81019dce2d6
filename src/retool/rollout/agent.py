"""The agent loop: reason, call, read the result, go on, until the model ends its turn or a budget is used up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from retool.config.schema import RolloutConfig, SamplingConfig
from retool.protocol import Call, Protocol
from retool.sampling.sampler import Sampler, SamplingParams, trajectory_key
from retool.sandbox import Result, Sandbox, Session
from retool.types import Author, CallStatus, Problem, Span, StopReason, ToolCall, Trajectory

_LOST = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)  # the sandbox's fault, never told to the model as its own


@dataclass(frozen=True, slots=True)
class Task:
    """One trajectory to be rolled out. (`arm`, `seed`, `step`, problem, `sample`) name it; `group` ties samples of one
    prompt together."""

    problem: Problem
    prompt_ids: list[int]
    arm: str
    seed: int
    step: int
    sample: int
    model: str

    @property
    def group(self) -> str:
        return f"{self.arm}/{self.step}/{self.problem.id}"

    @property
    def id(self) -> str:
        return f"{self.group}/{self.sample}"


@dataclass(frozen=True, slots=True)
class Agent:
    """What all trajectories share. `sandbox` is None where there is no interpreter (text-only protocol).

    `interpreter=False` keeps the prompt but forbids the opening of a call.
    """

    sampler: Sampler
    protocol: Protocol
    sandbox: Sandbox | None
    rollout: RolloutConfig
    sampling: SamplingConfig
    interpreter: bool = True

    async def run(self, task: Task) -> Trajectory:
        """Roll out one trajectory; it comes back ungraded."""
        trajectory = Trajectory(
            id=task.id,
            step=task.step,
            arm=task.arm,
            seed=task.seed,
            sample=task.sample,
            group=task.group,
            model=task.model,
            protocol=self.protocol.name,
            problem=task.problem,
            prompt_ids=task.prompt_ids,
        )
        key = trajectory_key(task.seed, task.id)
        began, tool_seconds = time.perf_counter(), 0.0
        handle, new_ids = None, task.prompt_ids
        session = self.sandbox.session(key, group=task.id) if self.sandbox and self.rollout.stateful else None
        try:
            while True:
                left = self.rollout.max_tokens - trajectory.tokens()
                segment = await self.sampler.extend(handle, new_ids, self._params(left), self._stop, key)
                handle = segment.handle
                offset = trajectory.tokens()
                trajectory.spans.append(
                    Span(
                        Author.MODEL,
                        segment.ids,
                        self.protocol.decode(segment.ids),
                        segment.logprobs,
                        segment.version,
                        None if segment.model_logprobs is segment.logprobs else segment.model_logprobs,
                    )
                )
                written = segment.ids[:-1] if segment.stop == "eos" else segment.ids  # the end is no part of a call
                calls = self.protocol.calls(written) if self.interpreter and segment.stop != "length" else []
                if not calls:
                    trajectory.stop = StopReason.EOS if segment.stop == "eos" else StopReason.TOKENS
                    break
                if len(trajectory.calls) + len(calls) > self.rollout.max_calls:
                    trajectory.stop = StopReason.CALLS
                    break
                called = time.perf_counter()
                results = await self._execute(calls, session, task.id, key + len(trajectory.calls))
                tool_seconds += time.perf_counter() - called
                span = len(trajectory.spans) - 1
                for call, result in zip(calls, results, strict=True):
                    trajectory.calls.append(_record(call, result, span, offset + call.start))
                if any(call.status in _LOST for call in trajectory.calls):
                    trajectory.stop = StopReason.SANDBOX
                    break
                splice = self.protocol.splice([call.output for call in trajectory.calls[-len(calls) :]])
                if trajectory.tokens() + len(splice.ids) >= self.rollout.max_tokens:
                    trajectory.stop = StopReason.TOKENS  # no room for the result and an answer
                    break
                trajectory.spans.append(Span(Author.INTERPRETER, splice.ids, splice.text))
                new_ids = splice.ids
        finally:
            if handle is not None:
                self.sampler.release(handle)
            if session is not None:
                session.close()
        trajectory.timing = {"seconds": time.perf_counter() - began, "tool_seconds": tool_seconds}
        return trajectory

    def _params(self, max_tokens: int) -> SamplingParams:
        forbid = None if self.interpreter else self.protocol.forbid
        return SamplingParams(self.sampling, max_tokens, self.protocol.eos_ids | self.sampler.eos_ids, forbid)

    def _stop(self, ids: list[int]) -> bool:
        return self.interpreter and self.protocol.stop(ids)

    async def _execute(self, calls: list[Call], session: Session | None, group: str, key: int) -> list[Result | None]:
        """Run the calls of one turn, side by side unless they share a state; None stands for a malformed one."""

        async def one(index: int, call: Call) -> Result | None:
            if call.code is None or self.sandbox is None:
                return None
            if session:
                return await session.run(call.code, echo=self.rollout.echo)
            return await self.sandbox.run(call.code, key=key + index, group=group, echo=self.rollout.echo)

        return await asyncio.gather(*(one(index, call) for index, call in enumerate(calls)))


def _record(call: Call, result: Result | None, span: int, start: int) -> ToolCall:
    if result is None:
        return ToolCall(span, start, call.code or "", call.error or "there is no interpreter", CallStatus.MALFORMED)
    return ToolCall(span, start, call.code or "", result.text, result.status)
