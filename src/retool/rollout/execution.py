"""The calls of a trajectory's turns, on their way to the sandbox and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from retool.config.schema import RolloutConfig
from retool.protocol import Call
from retool.rollout.budget import Budget
from retool.rollout.meter import Meter
from retool.rollout.together import together
from retool.sandbox import BlockExecutor, Executor, Result
from retool.types import CallStatus, ToolCall

_LOST = (CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD)  # the sandbox's fault, never told to the model as its own


@dataclass(frozen=True, slots=True)
class Execution:
    """What runs the calls of all trajectories. `sandbox` is None where there is no interpreter."""

    sandbox: Executor | None
    rollout: RolloutConfig
    meter: Meter

    @contextmanager
    def session(self, name: str, key: int) -> Iterator[BlockExecutor | None]:
        """A session of its own for trajectory `name` if its calls share their variables, else None."""
        if self.sandbox is None or not self.rollout.stateful:
            yield None
            return
        with self.sandbox.session(key, group=name) as session:
            yield session

    async def run(
        self, calls: Sequence[Call], session: BlockExecutor | None, budget: Budget, name: str, key: int
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


def record(call: Call, result: Result | None, span: int, start: int) -> ToolCall:
    """The call as a trajectory keeps it: made in span number `span`, at position `start` of the response."""
    if result is None:
        return ToolCall(span, start, call.code or "", call.error or "there is no interpreter", CallStatus.MALFORMED)
    return ToolCall(span, start, call.code or "", result.text, result.status)


def any_lost(calls: Sequence[ToolCall]) -> bool:
    """Did the sandbox fail one of them for reasons of its own?"""
    return any(call.status in _LOST for call in calls)
