"""Who waits is served in turns between groups, and oldest first within one; nobody is lost or served twice."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retool.sandbox import Limits, Sandbox
from retool.sandbox.supervision.fair_queue import FairQueue

KINDS = ("light", "scientific")
groups = st.sampled_from("abcd")
kinds = st.sampled_from(KINDS)


class QueueAgainstModel(RuleBasedStateMachine):
    """The model: a list of what waits, and a list of the groups that wait, next turn first."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.waiting: list[SimpleNamespace] = []
        self.turns: list[str] = []
        self.number = 0

    @rule(group=groups, kind=kinds)
    def put(self, group: str, kind: str) -> None:
        execution = SimpleNamespace(id=self.number, group=group, kind=kind, queued_at=float(self.number))
        self.number += 1
        self.queue.put(execution)
        self.waiting.append(execution)
        if group not in self.turns:
            self.turns.append(group)

    @rule(wanted=st.sets(kinds))
    def take(self, wanted: set[str]) -> None:
        fitting = [execution for execution in self.waiting if execution.kind in wanted]
        taken = self.queue.take(wanted)
        if not fitting:
            assert taken is None
            return
        turn = next(group for group in self.turns if any(execution.group == group for execution in fitting))
        assert taken is next(execution for execution in fitting if execution.group == turn)
        self.turns.remove(turn)
        self.turns.append(turn)
        self.forget(taken)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.queue.discard(gone.id)
        self.forget(gone)

    @rule(number=st.integers(-3, -1))
    def discard_what_is_not_there(self, number: int) -> None:
        self.queue.discard(number)

    @rule(kind=kinds)
    def take_all(self, kind: str) -> None:
        expected = [execution for execution in self.waiting if execution.kind == kind]
        assert self.queue.take_all(kind) == expected
        for execution in expected:
            self.forget(execution)

    @invariant()
    def the_counts_are_right(self) -> None:
        for kind in KINDS:
            assert self.queue.waiting(kind) == sum(execution.kind == kind for execution in self.waiting)

    def forget(self, execution: SimpleNamespace) -> None:
        self.waiting.remove(execution)
        if not any(other.group == execution.group for other in self.waiting):
            self.turns.remove(execution.group)


TestQueueAgainstModel = QueueAgainstModel.TestCase


@given(order=st.lists(groups, max_size=40))
def test_between_two_turns_of_a_group_that_waits_every_other_one_has_its_own(order: list[str]) -> None:
    queue = FairQueue()
    for number, group in enumerate(order):
        queue.put(SimpleNamespace(id=number, group=group, kind="light", queued_at=float(number)))
    served = [queue.take(["light"]) for _ in order]
    assert sorted(execution.id for execution in served) == list(range(len(order)))
    assert queue.take(["light"]) is None
    turns = [execution.group for execution in served]
    for position, group in enumerate(turns):
        remaining = set(turns[position:])
        next_turn = next((n for n in range(position + 1, len(turns)) if turns[n] == group), None)
        if next_turn is not None:
            assert set(turns[position:next_turn]) == remaining


def test_a_group_with_fifty_loops_does_not_keep_another_ones_single_call_waiting(box: Sandbox) -> None:
    loop = Limits(cpu_seconds=0.1)

    async def run() -> float:
        loops = [asyncio.create_task(box.run("while True: pass", loop, group="greedy")) for _ in range(50)]
        await asyncio.sleep(0.05)
        start = time.perf_counter()
        assert (await box.run("print(1)", group="modest")).text == "1"
        seconds = time.perf_counter() - start
        for call in loops:
            call.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        return seconds

    assert asyncio.run(run()) < 0.6  # all loops before it would take 2.5 s


@pytest.mark.parametrize("groups", [["one"] * 8, [str(n) for n in range(8)]])
def test_every_call_of_any_grouping_is_answered_once(box: Sandbox, groups: list[str]) -> None:
    async def run() -> list[str]:
        results = await asyncio.gather(*(box.run(f"print({n})", group=group) for n, group in enumerate(groups)))
        return [result.text for result in results]

    assert asyncio.run(run()) == [str(n) for n in range(len(groups))]
