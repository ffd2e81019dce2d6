"""A response may be given a number of calls after which it cannot open another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from worlds import END, PROTOCOLS, agent, call, prints, protocol_of, says, task

from retool.sampling.sampler import SamplingParams, Segment, StopFunction
from retool.sampling.scripted import ScriptedHandle, ScriptedSampler
from retool.types import StopReason, Trajectory


class WatchedSampler(ScriptedSampler):
    """Knows for each turn whether the opening of a call was forbidden."""

    def __init__(self, script: object):
        super().__init__(script)
        self.forbidden: list[bool] = []

    async def extend(
        self, handle: ScriptedHandle | None, ids: Sequence[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        self.forbidden.append(params.forbid is not None)
        return await super().extend(handle, ids, params, stop, key)


def roll_out(protocol_name: str, turns: int, calls: int | None) -> tuple[Trajectory, WatchedSampler]:
    protocol = protocol_of(protocol_name)
    written = [call(protocol, f"print({turn})") for turn in range(turns)]
    sampler = WatchedSampler(says(protocol, *written, f"\\boxed{{84}}{END}"))
    limited = replace(agent(protocol, sampler, prints("84")), calls=calls)
    return asyncio.run(limited.run(task(protocol))), sampler


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("calls", "forbidden"), [(None, [False] * 3), (2, [False, False, True]), (3, [False] * 3)])
def test_the_opening_is_forbidden_once_the_calls_are_made(
    protocol: str, calls: int | None, forbidden: list[bool]
) -> None:
    trajectory, sampler = roll_out(protocol, 2, calls)
    assert sampler.forbidden == forbidden
    assert (trajectory.stop, len(trajectory.calls)) == (StopReason.EOS, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_call_at_all_is_the_interpreter_off(protocol: str) -> None:
    trajectory, sampler = roll_out(protocol, 0, 0)
    assert sampler.forbidden == [True] and trajectory.stop is StopReason.EOS
