"""Groups of trajectories on their way through samplers that lose some of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.cluster.groups import Ask, Group, GroupQueue
from retool.config.sampling import SamplingConfig
from retool.types import Problem

SAMPLES = 4


def group(key: str, step: int = 1, oldest: int = 0) -> Group:
    return Group(key, Problem(key, "?", "1", "test"), Ask(step, "a", SAMPLES, SamplingConfig(), 1.0, ()), oldest)


@given(st.lists(st.sampled_from(["take", "finish", "lose", "again"]), max_size=60), st.data())
def test_each_group_has_one_result_whatever_is_lost(moves: list[str], data: st.DataObject) -> None:
    async def main() -> None:
        queue: GroupQueue[str] = GroupQueue(bound=1 << 30)
        groups = [group(f"g{n}", step=n % 3) for n in range(6)]
        queue.begin(groups)
        taken: list[Group] = []
        finished: list[Group] = []
        for move in moves:
            if move == "take" and (found := queue.take(version=9)):
                assert found not in taken and found not in finished
                taken.append(found)
            elif move in ("finish", "lose") and taken:
                chosen = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
                if move == "lose":
                    assert queue.give_back(chosen)
                else:
                    assert queue.finish(chosen, chosen.key)
                    assert not queue.finish(chosen, "a second time")
                    finished.append(chosen)
            elif move == "again" and finished:
                queue.again(finished.pop().key)
        for each in taken:
            assert queue.finish(each, each.key)
        while found := queue.take(version=9):
            assert queue.finish(found, found.key)
        results = await asyncio.gather(*(queue.result(each.key) for each in groups))
        assert Counter(results) == Counter(each.key for each in groups)
        queue.received(each.key for each in groups)
        assert not queue

    asyncio.run(main())


def test_groups_go_by_steps_and_lost_ones_go_first() -> None:
    async def main() -> None:
        queue: GroupQueue[str] = GroupQueue(bound=100)
        queue.begin([group("later", step=2), group("first", step=1), group("second", step=1)])
        first = queue.take(0)
        assert first.key == "first" and queue.give_back(first)
        assert [queue.take(0).key for _ in range(3)] == ["first", "second", "later"]
        assert queue.take(0) is None

    asyncio.run(main())


def test_nothing_is_begun_with_weights_that_are_too_old() -> None:
    async def main() -> None:
        queue: GroupQueue[str] = GroupQueue(bound=100)
        queue.begin([group("new", step=1, oldest=3), group("old", step=2, oldest=2)])
        assert queue.take(1) is None
        assert queue.take(2).key == "old"
        assert queue.take(3).key == "new"

    asyncio.run(main())


def test_what_nobody_asks_for_does_not_pile_up_but_what_is_awaited_is_never_held_back() -> None:
    async def main() -> None:
        queue: GroupQueue[str] = GroupQueue(bound=2 * SAMPLES)
        queue.begin([group(f"g{n}") for n in range(4)])
        for _ in range(2):
            queue.finish(queue.take(0), "done")
        assert queue.take(0) is None
        last = asyncio.create_task(queue.result("g3"))
        await asyncio.sleep(0)
        assert queue.take(0).key == "g3"
        assert await queue.result("g0") == "done"
        assert queue.take(0).key == "g2"
        last.cancel()

    asyncio.run(main())


def test_a_gang_that_is_lost_wants_nothing_any_more() -> None:
    async def main() -> None:
        queue: GroupQueue[str] = GroupQueue(bound=100)
        queue.begin([group("g")])
        taken, waiting = queue.take(0), asyncio.create_task(queue.result("g"))
        await asyncio.sleep(0)
        queue.clear()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        queue.begin([group("g")])
        assert not queue.finish(taken, "of the old gang") and not queue.give_back(taken)
        assert queue.take(0).key == "g"

    asyncio.run(main())
