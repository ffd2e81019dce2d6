"""In any sixty seconds no more is sent than the rates allow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.endpoint.rates import WINDOW_SECONDS, Rates


def sent_at(
    amounts: list[int], requests: int | None, tokens: int | None, gaps: list[float] | None = None
) -> list[float]:
    """When each request may go, if it is made `gaps` seconds after the one before has gone, on a clock of its own."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def main() -> list[float]:
        rates, times = Rates(requests, tokens, lambda: now), []
        for amount, gap in zip(amounts, gaps or [0.0] * len(amounts), strict=False):
            await sleep(gap)
            times.append((await rates.admit(amount)).when)
        return times

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retool.endpoint.rates.asyncio.sleep", sleep)
        return asyncio.run(main())


amounts_of_tokens = st.lists(st.integers(1, 100), max_size=40)
gaps_between = st.lists(st.integers(0, 50).map(float), min_size=40, max_size=40)


@given(amounts_of_tokens, st.integers(1, 9), st.integers(50, 300), gaps_between)
def test_no_window_holds_more_than_the_rates(amounts: list[int], requests: int, tokens: int, gaps: list[float]) -> None:
    times = sent_at(amounts, requests, tokens, gaps)
    assert times == sorted(times)
    for begin in times:
        inside = [n for n, when in enumerate(times) if begin <= when < begin + WINDOW_SECONDS - 1e-6]
        assert len(inside) <= requests
        assert sum(amounts[n] for n in inside) <= tokens or len(inside) == 1


def test_without_rates_nothing_waits() -> None:
    assert sent_at([10**9] * 100, None, None) == [0.0] * 100


def test_a_request_waits_no_longer_than_it_has_to() -> None:
    assert sent_at([1] * 5, 2, None) == [0.0, 0.0, 60.0, 60.0, 120.0]


def test_what_a_reply_did_not_use_is_given_back() -> None:
    async def main() -> float:
        now = 100.0
        rates = Rates(None, 100, lambda: now)
        (await rates.admit(90)).tokens = 20
        return rates._seconds_to_wait(80) + (await rates.admit(80)).when

    assert asyncio.run(main()) == 100.0
