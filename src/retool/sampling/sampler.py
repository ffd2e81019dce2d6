"""What every sampler is: the seam between the agent loop and whatever computes the next token."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from retool.config.sampling import SamplingConfig

if TYPE_CHECKING:
    import torch

StopFunction = Callable[[Sequence[int]], bool]
PhaseFunction = Callable[[str, float, float], None]
ForbidFunction = Callable[[Sequence[int]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next tokens are drawn.

    `max_tokens` bounds this segment. `eos_ids` end it. `forbid`, if given, maps the ids of the segment so far to the
    ids that must not come next; their probability is given to the others.
    """

    config: SamplingConfig
    max_tokens: int
    eos_ids: frozenset[int]
    forbid: ForbidFunction | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """What was sampled: `ids` and, one per id, `logprobs` under the distribution that was really sampled from.

    `model_logprobs` are those of the model itself, at temperature 1 with nothing left out; the same list as `logprobs`
    where the two distributions are the same.
    `stop`: `eos` (an id of `eos_ids` is the last one), `stop` (the stop function said so) or `length`. `version` is
    that of the weights, and `updates` are the places where newer ones went on, as `Span.updates`. `handle` is the kept
    KV cache, to be given back with the next ids or released.
    """

    ids: list[int]
    logprobs: list[float]
    model_logprobs: list[float]
    stop: Literal["eos", "stop", "length"]
    version: int
    handle: Any
    updates: list[tuple[int, int]] | None = None


class Sampler(ABC):
    """Draws tokens for many trajectories at once; one coroutine per trajectory awaits `extend`."""

    eos_ids: frozenset[int] = frozenset()
    """Ids with which the model ends its turn by its own account, beside those that the protocol knows."""

    on_phase: PhaseFunction | None = None
    """If set, told of each phase (`prefill`, `decode`, …) when it is over: its name, start and end, in seconds of
    `time.perf_counter`."""

    @abstractmethod
    async def extend(
        self, handle: Any | None, ids: Sequence[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        """Append `ids` (a prompt where `handle` is None, else a spliced result) and sample until something stops it.

        `key` names the trajectory: the random numbers are a function of it and of the token's position alone. Where it
        is cancelled or fails, a cache that the caller has no handle of is released; a handle that was given stays the
        caller's.
        """

    @abstractmethod
    def release(self, handle: Any) -> None:
        """Give up the KV cache behind `handle`."""

    @abstractmethod
    async def update(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """The weights are those of `version` from now on. `weights` are all of them by their Hugging Face names, for a
        sampler that keeps a copy. What was computed with the old ones is not reused for new trajectories; those under
        way go on, with the new weights after what the cache holds of the old ones, or end their segment first.
        """

    def take_stats(self) -> dict[str, float]:
        """Counters since they were last taken: tokens and seconds by phase."""
        return {}

    def cache_in_use(self) -> float:
        """The share of the KV cache that is in use now, 0 to 1; 0 for a sampler that does not say."""
        return 0.0


def trajectory_key(*names: str | int) -> int:
    """A 64-bit key from what names a trajectory (seed, arm, step, problem, sample), the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
