"""What one trajectory may use: tokens in all and in a turn, calls, seconds."""

from __future__ import annotations

import time
from typing import Literal

from retool.config.schema import RolloutConfig
from retool.types import StopReason


class Budget:
    """What is left to one trajectory of the limits in `rollout`.

    Its seconds begin with its first token, so that waiting for a row of the sampler, which depends on how many others
    there are, costs it nothing. Everything after that counts, the interpreter's time too.
    """

    def __init__(self, limits: RolloutConfig):
        self._limits = limits
        self._tokens, self._calls = limits.max_tokens, limits.max_calls
        self._deadline: float | None = None

    @property
    def turn_tokens(self) -> int:
        """Tokens that the model may write before it is stopped."""
        return min(self._tokens, self._limits.max_turn_tokens or self._tokens)

    @property
    def seconds_left(self) -> float | None:
        """None: there is no limit."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def out_of_time(self) -> bool:
        """Asked at every token; the first time starts the clock."""
        if self._limits.max_seconds is None:
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + self._limits.max_seconds
        return time.monotonic() >= self._deadline

    def after_turn(self, tokens: int, ended: Literal["eos", "stop", "length"], calls: int) -> StopReason | None:
        """Charge a turn of the model: why the trajectory ends with it, or None if its calls are to be run."""
        self._tokens -= tokens
        if ended == "eos" and not calls:
            return StopReason.EOS
        if ended != "length" and self.out_of_time():
            return StopReason.SECONDS
        if not calls:
            return StopReason.TURN_TOKENS if self._tokens else StopReason.TOKENS
        if calls > self._calls:
            return StopReason.CALLS
        self._calls -= calls
        return None

    def after_result(self, tokens: int) -> StopReason | None:
        """Charge a result: `TOKENS` if there is no room for it and at least one token of an answer."""
        self._tokens -= tokens
        return StopReason.TOKENS if self._tokens <= 0 else None
