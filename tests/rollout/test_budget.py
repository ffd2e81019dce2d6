"""Each limit of a trajectory ends it with a reason of its own."""

from __future__ import annotations

import asyncio
import time

import pytest
from worlds import END, PROTOCOLS, PacedSampler, agent, call, ids_of, prints, protocol_of, says, sleeps, task

from retool.types import Author, StopReason, Trajectory

ANSWER = "So \\boxed{84}." + END


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest):
    return protocol_of(request.param)


def roll_out(protocol, sampler: PacedSampler, sandbox: object, **limits: object) -> Trajectory:
    trajectory = asyncio.run(agent(protocol, sampler, sandbox, **limits).run(task(protocol)))
    assert not sampler.open
    assert trajectory.truncated == (trajectory.stop is not StopReason.EOS)
    return trajectory


def test_every_turn_has_the_same_bound(protocol) -> None:
    turn = call(protocol, "print(84)")
    length = len(ids_of(protocol, turn))
    sampler = PacedSampler(says(protocol, turn, turn, "word " * 200))
    trajectory = roll_out(protocol, sampler, prints("84"), max_turn_tokens=length)
    assert trajectory.stop is StopReason.TURN_TOKENS
    assert [len(s.ids) for s in trajectory.spans if s.author is Author.MODEL] == [length, length, length]


def test_the_bound_of_all_tokens_wins_where_both_are_reached(protocol) -> None:
    sampler = PacedSampler(lambda _: ids_of(protocol, "word " * 200))
    trajectory = roll_out(protocol, sampler, prints("84"), max_tokens=30, max_turn_tokens=30)
    assert (trajectory.stop, trajectory.tokens()) == (StopReason.TOKENS, 30)


def test_what_was_written_when_the_seconds_went_by_is_kept(protocol) -> None:
    sampler = PacedSampler(lambda _: ids_of(protocol, "word " * 200), pace=0.005)
    trajectory = roll_out(protocol, sampler, prints("84"), max_seconds=0.1)
    assert trajectory.stop is StopReason.SECONDS
    assert 1 <= trajectory.tokens(Author.MODEL) < 100
    assert len(trajectory.spans[0].logprobs) == trajectory.tokens()


def test_code_is_ended_when_the_seconds_go_by(protocol) -> None:
    sampler, sandbox = PacedSampler(says(protocol, call(protocol, "f()"), ANSWER)), sleeps(30)
    began = time.monotonic()
    trajectory = roll_out(protocol, sampler, sandbox, max_seconds=0.1, stateful=True)
    assert (trajectory.stop, trajectory.calls) == (StopReason.SECONDS, [])
    assert time.monotonic() - began < 10
    assert (sandbox.running, sandbox.sessions) == (0, 0)


def test_waiting_for_the_first_token_costs_no_seconds(protocol) -> None:
    class Busy(PacedSampler):
        async def extend(self, *arguments):
            await asyncio.sleep(0.2)
            return await super().extend(*arguments)

    trajectory = roll_out(protocol, Busy(says(protocol, ANSWER)), prints(""), max_seconds=0.15)
    assert trajectory.stop is StopReason.EOS


def test_a_call_completed_too_late_is_not_run(protocol) -> None:
    turn = call(protocol, "f()")
    sampler = PacedSampler(says(protocol, turn), pace=0.15 / len(ids_of(protocol, turn)))
    trajectory = roll_out(protocol, sampler, prints("never"), max_seconds=0.01)
    assert (trajectory.stop, trajectory.calls) == (StopReason.SECONDS, [])


def test_a_timeout_inside_the_sandbox_is_an_error_and_not_the_end_of_the_seconds(protocol) -> None:
    class Broken:
        async def run(self, code: str, **_: object):
            raise TimeoutError("the line is dead")

    sampler = PacedSampler(says(protocol, call(protocol, "f()")))
    with pytest.raises(TimeoutError, match="the line is dead"):
        roll_out(protocol, sampler, Broken(), max_seconds=60)
