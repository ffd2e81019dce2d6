"""The agent loop: reason, call, read the result, go on, until the model ends its turn or a budget is used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from retool.config.sampling import SamplingConfig
from retool.config.schema import RolloutConfig
from retool.protocol import Call, Protocol
from retool.rollout.budget import Budget
from retool.rollout.meter import Meter
from retool.rollout.together import together
from retool.sampling.sampler import Sampler, SamplingParams, Segment, trajectory_key
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

    def begin(self, protocol: str) -> Trajectory:
        """The trajectory before its first token."""
        return Trajectory(
            id=self.id,
            step=self.step,
            arm=self.arm,
            seed=self.seed,
            sample=self.sample,
            group=self.group,
            model=self.model,
            protocol=protocol,
            problem=self.problem,
            prompt_ids=self.prompt_ids,
        )


@dataclass(frozen=True, slots=True)
class Agent:
    """What all trajectories share. `sandbox` is None where there is no interpreter (text-only protocol).

    `interpreter=False` keeps the prompt but forbids the opening of a call. `meter` is told what everything costs.
    """

    sampler: Sampler
    protocol: Protocol
    sandbox: Sandbox | None
    rollout: RolloutConfig
    sampling: SamplingConfig
    interpreter: bool = True
    meter: Meter = field(default_factory=Meter)

    async def run(self, task: Task) -> Trajectory:
        """Roll out one trajectory; it comes back ungraded.

        However this ends, the sampler's cache is released and the session closed. Errors of the sampler are raised.
        """
        trajectory, budget = task.begin(self.protocol.name), Budget(self.rollout)
        key = trajectory_key(task.seed, task.id)
        began, tool_seconds = time.perf_counter(), 0.0
        handle, new_ids = None, task.prompt_ids
        with self.meter.trajectory(len(task.prompt_ids)), self._session(task, key) as session:
            try:
                while True:
                    with self.meter.sampling(task.id) as facts:
                        segment = await self._sample(handle, new_ids, budget, key)
                        facts |= {"tokens": len(segment.ids), "ended": segment.stop}
                    handle = segment.handle
                    start = trajectory.tokens()
                    self._add_model_span(trajectory, segment)
                    calls = self._find_calls(segment)
                    if stop := budget.after_turn(len(segment.ids), segment.stop, len(calls)):
                        break

                    called = time.perf_counter()
                    results = await self._execute(calls, session, budget, task.id, key + len(trajectory.calls))
                    tool_seconds += time.perf_counter() - called
                    if results is None:
                        stop = StopReason.SECONDS
                        break
                    answered = [
                        _record(call, result, len(trajectory.spans) - 1, start + call.start)
                        for call, result in zip(calls, results, strict=True)
                    ]
                    trajectory.calls += answered
                    if any(call.status in _LOST for call in answered):
                        stop = StopReason.SANDBOX
                        break

                    splice = self.protocol.splice([call.output for call in answered])
                    if stop := budget.after_result(len(splice.ids)):
                        break
                    self._add_span(trajectory, Span(Author.INTERPRETER, splice.ids, splice.text))
                    new_ids = splice.ids
            finally:
                if handle is not None:
                    self.sampler.release(handle)
        trajectory.stop = stop
        trajectory.timing = {"seconds": time.perf_counter() - began, "tool_seconds": tool_seconds}
        return trajectory

    async def _sample(self, handle: object, ids: Sequence[int], budget: Budget, key: int) -> Segment:
        """The model's next turn: up to a call, its own end, or the end of a budget."""
        forbid = None if self.interpreter else self.protocol.forbid
        eos_ids = self.protocol.eos_ids | self.sampler.eos_ids
        params = SamplingParams(self.sampling, budget.turn_tokens, eos_ids, forbid)

        def stop(written: Sequence[int]) -> bool:
            return (self.interpreter and self.protocol.stop(written)) or budget.out_of_time()

        return await self.sampler.extend(handle, ids, params, stop, key)

    def _find_calls(self, segment: Segment) -> list[Call]:
        if not self.interpreter or segment.stop == "length":
            return []
        return self.protocol.calls(segment.ids[:-1] if segment.stop == "eos" else segment.ids)  # the end is no call's

    async def _execute(
        self, calls: list[Call], session: Session | None, budget: Budget, name: str, key: int
    ) -> list[Result | None] | None:
        """Run the calls of one turn, side by side unless they share a state; None stands for a malformed one.

        None in place of all of them: the trajectory's seconds are over, and what still ran has been ended.
        """

        async def one(index: int, call: Call) -> Result | None:
            if call.code is None or self.sandbox is None:
                return None
            began = time.perf_counter()
            if session:
                result = await session.run(call.code, echo=self.rollout.echo)
            else:
                result = await self.sandbox.run(call.code, key=key + index, group=name, echo=self.rollout.echo)
            self.meter.called(name, index, began, result)
            return result

        with self.meter.calling(name):
            try:
                async with asyncio.timeout(budget.seconds_left) as deadline, together() as group:
                    running = [group.create_task(one(index, call)) for index, call in enumerate(calls)]
            except TimeoutError:
                if not deadline.expired():
                    raise
                return None
        return [task.result() for task in running]

    @contextmanager
    def _session(self, task: Task, key: int) -> Iterator[Session | None]:
        """A session of its own for a trajectory whose calls share their variables."""
        if self.sandbox is None or not self.rollout.stateful:
            yield None
            return
        with self.sandbox.session(key, group=task.id) as session:
            yield session

    def _add_model_span(self, trajectory: Trajectory, segment: Segment) -> None:
        text = self.protocol.decode(segment.ids)
        model_logprobs = None if segment.model_logprobs is segment.logprobs else segment.model_logprobs
        span = Span(Author.MODEL, segment.ids, text, segment.logprobs, segment.version, model_logprobs)
        self._add_span(trajectory, span)

    def _add_span(self, trajectory: Trajectory, span: Span) -> None:
        trajectory.spans.append(span)
        self.meter.wrote(span.author, len(span.ids))


def _record(call: Call, result: Result | None, span: int, start: int) -> ToolCall:
    if result is None:
        return ToolCall(span, start, call.code or "", call.error or "there is no interpreter", CallStatus.MALFORMED)
    return ToolCall(span, start, call.code or "", result.text, result.status)
