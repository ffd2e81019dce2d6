"""Who has a row of the cache, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from retool.config.sampling import SamplingConfig
from retool.sampling.sampler import SamplingParams
from retool.sampling.scheduler import Request, Row, Scheduler

SECONDS_PER_TOKEN = 0.01


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def request(loop: asyncio.AbstractEventLoop, row: Row | None = None) -> Request:
    params = SamplingParams(SamplingConfig(), 8, frozenset())
    return Request(row or Row([1] * 100), params, lambda _: False, 0, loop.create_future())


def rest(scheduler: Scheduler, ended: Request, now: float) -> None:
    """Its segment is complete, all of it read."""
    ended.row.length, ended.row.sampled = len(ended.row.ids), 1
    ended.future.set_result(None)
    scheduler.retire(now)


def test_rows_go_to_the_first_who_came(loop: asyncio.AbstractEventLoop) -> None:
    scheduler = Scheduler(2, 2, may_preempt=True)
    first, second, third = (request(loop) for _ in range(3))
    for one in (first, second, third):
        scheduler.add(one)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    assert scheduler.active == [first, second] and list(scheduler.waiting) == [third]
    scheduler.retire(0.0)
    scheduler.withdraw(first, 0.0)
    scheduler.release(first.row)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    assert scheduler.active == [second, third] and third.row.index == 0


def test_a_row_changes_hands_once_its_owner_has_rested_as_long_as_reading_it_again_takes(
    loop: asyncio.AbstractEventLoop,
) -> None:
    scheduler = Scheduler(1, 1, may_preempt=True)
    owner, other = request(loop), request(loop)
    scheduler.add(owner)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    rest(scheduler, owner, now=5.0)
    scheduler.add(other)
    scheduler.admit(5.9, SECONDS_PER_TOKEN)
    assert not scheduler.active
    assert scheduler.seconds_to_preemption(5.9, SECONDS_PER_TOKEN) == pytest.approx(0.1)
    scheduler.admit(6.0, SECONDS_PER_TOKEN)
    assert scheduler.active == [other] and scheduler.preempted == 1
    assert (owner.row.index, owner.row.length, owner.row.lost, len(owner.row.ids)) == (None, 0, 100, 100)


def test_who_has_lost_its_row_comes_before_new_ones_when_it_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    scheduler = Scheduler(1, 1, may_preempt=True)
    owner, other, newer = request(loop), request(loop), request(loop)
    scheduler.add(owner)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    rest(scheduler, owner, now=0.0)
    scheduler.add(other)
    scheduler.add(newer)
    scheduler.admit(9.0, SECONDS_PER_TOKEN)
    going_on = request(loop, owner.row)
    scheduler.add(going_on)
    assert list(scheduler.waiting) == [going_on, newer]


def test_nobody_loses_its_row_while_as_many_are_active_as_can_decode(loop: asyncio.AbstractEventLoop) -> None:
    scheduler = Scheduler(2, 1, may_preempt=True)
    owner, busy, other = request(loop), request(loop), request(loop)
    for one in (owner, busy):
        scheduler.add(one)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    rest(scheduler, owner, now=0.0)
    scheduler.add(other)
    scheduler.admit(9.0, SECONDS_PER_TOKEN)
    assert scheduler.active == [busy] and list(scheduler.waiting) == [other]
    rest(scheduler, busy, now=9.0)
    scheduler.admit(9.0, SECONDS_PER_TOKEN)
    assert scheduler.active == [other] and owner.row.index is None and busy.row.index is not None


def test_where_preemption_is_not_allowed_only_a_release_helps(loop: asyncio.AbstractEventLoop) -> None:
    scheduler = Scheduler(1, 1, may_preempt=False)
    owner, other = request(loop), request(loop)
    scheduler.add(owner)
    scheduler.admit(0.0, SECONDS_PER_TOKEN)
    rest(scheduler, owner, now=0.0)
    scheduler.add(other)
    scheduler.admit(1e9, SECONDS_PER_TOKEN)
    assert not scheduler.active and scheduler.seconds_to_preemption(1e9, SECONDS_PER_TOKEN) is None
    scheduler.release(owner.row)
    scheduler.release(owner.row)
    scheduler.admit(1e9, SECONDS_PER_TOKEN)
    assert scheduler.active == [other] and scheduler.in_use == 1
