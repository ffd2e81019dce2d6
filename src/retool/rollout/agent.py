"""The agent loop: reason, call, read the result, go on, until the model ends its turn or a budget is used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from retool.config.sampling import SamplingConfig
from retool.config.schema import RolloutConfig
from retool.protocol import Call, Protocol
from retool.rollout.budget import Budget
from retool.rollout.execution import Execution, any_lost, record
from retool.rollout.meter import Meter
from retool.sampling.sampler import Sampler, SamplingParams, Segment, trajectory_key
from retool.sandbox import Executor
from retool.types import Author, Problem, Span, StopReason, Trajectory

Watcher = Callable[[Trajectory, Sequence[int]], None]
"""Told of a trajectory whenever it grows: by a token of the turn under way, whose ids so far are given too; by a
span or an answered call, when there are none."""


@dataclass(frozen=True, slots=True)
class Task:
    """One trajectory to be rolled out. (`arm`, `seed`, `step`, problem, `sample`) name it; `group` ties samples of one
    prompt together. `prompt_ids` is None where the prompt is messages."""

    problem: Problem
    prompt_ids: list[int] | None
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

    `interpreter=False` keeps the prompt but forbids the opening of a call, and so does a response that has made `calls`
    calls, if that is given. `meter` is told what everything costs, `watch` what is written, as it comes.
    """

    sampler: Sampler
    protocol: Protocol
    sandbox: Executor | None
    rollout: RolloutConfig
    sampling: SamplingConfig
    interpreter: bool = True
    meter: Meter = field(default_factory=Meter)
    calls: int | None = None
    watch: Watcher | None = None

    async def run(self, task: Task) -> Trajectory:
        """Roll out one trajectory; it comes back ungraded.

        However this ends, the sampler's cache is released and the session closed. Errors of the sampler are raised.
        """
        trajectory, budget = task.begin(self.protocol.name), Budget(self.rollout)
        key = trajectory_key(task.seed, task.id)
        began, tool_seconds = time.perf_counter(), 0.0
        handle, new_ids = None, task.prompt_ids or []
        execution = Execution(self.sandbox, self.rollout, self.meter)
        with self.meter.trajectory(len(new_ids)), execution.session(task.id, key) as session:
            try:
                while True:
                    may_call = self.interpreter and (self.calls is None or len(trajectory.calls) < self.calls)
                    with self.meter.sampling(task.id) as facts:
                        segment = await self._sample(handle, new_ids, budget, may_call, key, trajectory)
                        facts |= {"tokens": len(segment.ids), "ended": segment.stop}
                    handle = segment.handle
                    start = trajectory.tokens()
                    self._add_model_span(trajectory, segment)
                    calls = self._find_calls(segment) if may_call else []
                    if stop := budget.after_turn(len(segment.ids), segment.stop, len(calls)):
                        break

                    called = time.perf_counter()
                    results = await execution.run(calls, session, budget, task.id, key + len(trajectory.calls))
                    tool_seconds += time.perf_counter() - called
                    if results is None:
                        stop = StopReason.SECONDS
                        break
                    answered = [
                        record(call, result, len(trajectory.spans) - 1, start + call.start)
                        for call, result in zip(calls, results, strict=True)
                    ]
                    trajectory.calls += answered
                    self._tell(trajectory)
                    if any_lost(answered):
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

    async def _sample(
        self, handle: object, ids: Sequence[int], budget: Budget, may_call: bool, key: int, trajectory: Trajectory
    ) -> Segment:
        """The model's next turn: up to a call, its own end, or the end of a budget."""
        forbid = None if may_call else self.protocol.forbid
        eos_ids = self.protocol.eos_ids | self.sampler.eos_ids
        params = SamplingParams(self.sampling, budget.turn_tokens, eos_ids, forbid)

        def stop(written: Sequence[int]) -> bool:
            self._tell(trajectory, written)
            return (may_call and self.protocol.stop(written)) or budget.out_of_time()

        return await self.sampler.extend(handle, ids, params, stop, key)

    def _find_calls(self, segment: Segment) -> list[Call]:
        if segment.stop == "length":
            return []
        return self.protocol.calls(segment.ids[:-1] if segment.stop == "eos" else segment.ids)  # the end is no call's

    def _add_model_span(self, trajectory: Trajectory, segment: Segment) -> None:
        text = self.protocol.decode(segment.ids)
        model_logprobs = None if segment.model_logprobs is segment.logprobs else segment.model_logprobs
        drawn = segment.ids, text, segment.logprobs, segment.version, model_logprobs, segment.updates
        self._add_span(trajectory, Span(Author.MODEL, *drawn))

    def _add_span(self, trajectory: Trajectory, span: Span) -> None:
        trajectory.spans.append(span)
        self.meter.wrote(span.author, len(span.ids))
        self._tell(trajectory)

    def _tell(self, trajectory: Trajectory, writing: Sequence[int] = ()) -> None:
        if self.watch:
            self.watch(trajectory, writing)
