"""A batch keeps what is wanted, and whatever ends it leaves nothing behind: no cache, no session, no task."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from worlds import END, PROBLEM, FakeSandbox, PacedSampler, agent, call, ids_of, prints, protocol_of, says, sleeps, task

from retool.grading import Grader
from retool.protocol import Protocol
from retool.rollout.agent import Task
from retool.rollout.collect import collect
from retool.rollout.meter import Meter
from retool.sandbox import Result
from retool.types import CallStatus, StopReason, Trajectory

ANSWER = "So \\boxed{84}." + END


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return protocol_of("tags")


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` to its end, with nothing going on after it."""

    async def main() -> Any:
        try:
            return await work
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def lengths(protocol: Protocol, by_sample: Sequence[int], tasks: Sequence[Task]) -> PacedSampler:
    """A sampler whose trajectories have as many words as `by_sample` says: their prompts tell them apart."""
    words = {tuple(each.prompt_ids): "word " * by_sample[each.sample] for each in tasks}
    prompts = [(prompt, ids_of(protocol, text + ANSWER)) for prompt, text in words.items()]
    return PacedSampler(lambda ids: next(answer for prompt, answer in prompts if tuple(ids) == prompt), pace=0.001)


def samples_of(protocol: Protocol, count: int, problem: str = "p") -> list[Task]:
    """Tasks of one group. Their prompts differ, which the script needs and the batch does not mind."""
    base = replace(PROBLEM, id=problem)
    return [
        replace(task(protocol, n, base), prompt_ids=protocol.prompt_ids(f"{problem}{n}"), problem=base)
        for n in range(count)
    ]


def gather(agent_: Any, tasks: Sequence[Task], samples: int | None = None) -> list[Trajectory]:
    async def main() -> list[Trajectory]:
        with Grader() as grader:
            return await collect(agent_, tasks, grader, samples)

    return finish(main())


def test_of_a_group_with_spares_the_first_to_be_complete_are_kept(protocol: Protocol) -> None:
    tasks = samples_of(protocol, 5, "a") + samples_of(protocol, 5, "b")
    sampler, meter = lengths(protocol, [60, 1, 90, 2, 3], tasks), Meter()
    found = gather(agent(protocol, sampler, prints(""), meter), tasks, samples=3)
    assert [(t.problem.id, t.sample) for t in found] == [(p, n) for p in "ab" for n in (1, 3, 4)]
    assert all(t.correct for t in found)
    assert (meter.finished, meter.cancelled) == (6, 4)
    assert not sampler.open


def test_without_spares_all_are_kept_in_order_whoever_is_first(protocol: Protocol) -> None:
    tasks = samples_of(protocol, 4)
    found = gather(agent(protocol, lengths(protocol, [9, 1, 5, 3], tasks), prints("")), tasks)
    assert [t.sample for t in found] == [0, 1, 2, 3]


def test_a_trajectory_that_the_sandbox_lost_is_kept_only_for_want_of_another(protocol: Protocol) -> None:
    async def lose(code: str) -> Result:
        return Result(CallStatus.SANDBOX_ERROR)

    tasks = samples_of(protocol, 4)
    first = ids_of(protocol, call(protocol, "1"))
    prompts = [tuple(each.prompt_ids) for each in tasks]

    def kept(loses: set[int], samples: int) -> list[tuple[int, StopReason]]:
        def script(ids: list[int]) -> list[int]:
            return first if prompts.index(tuple(ids)) in loses else ids_of(protocol, "word " * 20 + ANSWER)

        sampler = PacedSampler(script)
        found = gather(agent(protocol, sampler, FakeSandbox(lose)), tasks, samples)
        assert not sampler.open
        return [(t.sample, t.stop) for t in found]

    assert kept({0, 2}, 2) == [(1, StopReason.EOS), (3, StopReason.EOS)]
    assert kept({0, 1, 2}, 2) == [(0, StopReason.SANDBOX), (3, StopReason.EOS)]


def test_a_spare_is_cancelled_while_its_code_runs(protocol: Protocol) -> None:
    tasks = samples_of(protocol, 2)
    slow = tuple(tasks[0].prompt_ids)
    sandbox = sleeps(60)
    sampler = PacedSampler(
        lambda ids: ids_of(protocol, call(protocol, "1") if tuple(ids) == slow else "word " + ANSWER)
    )
    found = gather(agent(protocol, sampler, sandbox, stateful=True), tasks, samples=1)
    assert [t.sample for t in found] == [1]
    assert (sampler.open, sandbox.running, sandbox.sessions) == ([], 0, 0)


@pytest.mark.parametrize("who", ["sampler", "sandbox", "protocol"])
def test_an_error_in_one_trajectory_ends_the_others_and_is_raised_as_it_is(
    protocol: Protocol, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(code: str) -> Result:
        await asyncio.sleep(0.02)
        if who == "sandbox":
            raise RuntimeError("the sandbox is on fire")
        return Result(CallStatus.OK, "7")

    def splice(results: Sequence[str]) -> None:
        raise RuntimeError("the protocol is on fire")

    if who == "protocol":
        monkeypatch.setattr(protocol, "splice", splice)
    sandbox, tasks = FakeSandbox(answer), samples_of(protocol, 6)
    sampler = PacedSampler(
        says(protocol, call(protocol, "1"), ANSWER), 0.001, failing_after=8 if who == "sampler" else None
    )
    with pytest.raises(RuntimeError, match=f"the {who} is on fire"):
        gather(agent(protocol, sampler, sandbox, stateful=True), tasks)
    assert (sampler.open, sandbox.running, sandbox.sessions) == ([], 0, 0)


def endless(protocol: Protocol) -> PacedSampler:
    """Two calls, then more than half a second of words."""
    turns = call(protocol, "1"), call(protocol, "2"), 20 * "word " * 20 + ANSWER
    return PacedSampler(says(protocol, *turns), 0.001)


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.05, 0.08])
def test_a_cancelled_batch_leaves_nothing_behind(protocol: Protocol, seconds: float) -> None:
    sandbox, sampler = sleeps(0.02), endless(protocol)
    rolled = agent(protocol, sampler, sandbox, stateful=True, max_tokens=5000)

    async def interrupted() -> None:
        with Grader() as grader:
            work = asyncio.create_task(collect(rolled, samples_of(protocol, 8), grader))
            await asyncio.sleep(seconds)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

    finish(interrupted())
    assert (sampler.open, sandbox.running, sandbox.sessions) == ([], 0, 0)


@pytest.mark.parametrize("seconds", [0.01, 0.06])
def test_ctrl_c_ends_a_batch_in_order(protocol: Protocol, seconds: float) -> None:
    sandbox, sampler = sleeps(0.02), endless(protocol)
    rolled = agent(protocol, sampler, sandbox, stateful=True, max_tokens=5000)

    async def interrupted() -> None:
        asyncio.get_running_loop().call_later(seconds, signal.raise_signal, signal.SIGINT)
        with Grader() as grader:
            await collect(rolled, samples_of(protocol, 8), grader)

    with pytest.raises(KeyboardInterrupt):
        finish(interrupted())
    assert (sampler.open, sandbox.running, sandbox.sessions) == ([], 0, 0)
