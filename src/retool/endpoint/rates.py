"""Keeping to rates: what may be sent in any 60 seconds, and when a server says to wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0


@dataclass(slots=True)
class Entry:
    """A request on record: when it was sent, and its tokens, as expected and later as they were."""

    when: float
    tokens: int


class Rates:
    """Lets requests through one after the other, in the order in which they ask.

    `clock` gives seconds. A request of more tokens than a minute allows goes alone.
    """

    def __init__(self, requests: int | None, tokens: int | None, clock: Callable[[], float]):
        self._requests, self._tokens, self._clock = requests, tokens, clock
        self._sent: deque[Entry] = deque()
        self._turn = asyncio.Lock()
        self._closed_until = float("-inf")

    async def admit(self, tokens: int) -> Entry:
        """Wait until a request of `tokens` may be sent, and put it on record."""
        async with self._turn:
            while (seconds := self._seconds_to_wait(tokens)) > 0:
                await asyncio.sleep(seconds)
            entry = Entry(self._clock(), tokens)
            if self._requests or self._tokens:
                self._sent.append(entry)
            return entry

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the server has said so to one request, and means all."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _seconds_to_wait(self, tokens: int) -> float:
        now = self._clock()
        while self._sent and self._sent[0].when <= now - WINDOW_SECONDS:
            self._sent.popleft()
        if now < self._closed_until:
            return self._closed_until - now
        too_many = self._requests is not None and len(self._sent) >= self._requests
        too_much = self._tokens is not None and sum(entry.tokens for entry in self._sent) + tokens > self._tokens
        return self._sent[0].when + WINDOW_SECONDS - now if self._sent and (too_many or too_much) else 0.0
