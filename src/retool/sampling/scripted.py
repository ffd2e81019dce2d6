"""A sampler that says what it is told to: for tests of everything that stands on sampling, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from retool.sampling.sampler import Sampler, SamplingParams, Segment, StopFunction


@dataclass(slots=True)
class ScriptedHandle:
    """Every id that the trajectory has seen or written."""

    ids: list[int] = field(default_factory=list)


class ScriptedSampler(Sampler):
    """`script` maps all ids so far (prompt, own tokens, results) to the ids that come next; all have log-prob 0.

    With `pace` a token takes so many seconds, in which others run.
    """

    def __init__(self, script: Callable[[list[int]], Sequence[int]], pace: float | None = None):
        self._script = script
        self._pace = pace
        self.released = 0
        self.version = 0

    async def extend(
        self,
        handle: ScriptedHandle | None,
        ids: Sequence[int],
        params: SamplingParams,
        stop: StopFunction,
        key: int,
    ) -> Segment:
        handle = handle or ScriptedHandle()
        out: list[int] = []
        reason = "length"
        for token in self._script([*handle.ids, *ids])[: params.max_tokens]:
            if self._pace is not None:
                await asyncio.sleep(self._pace)
            out.append(token)
            if token in params.eos_ids:
                reason = "eos"
                break
            if stop(out):
                reason = "stop"
                break
        handle.ids += [*ids, *out]
        return Segment(out, [0.0] * len(out), [0.0] * len(out), reason, self.version, handle)

    def release(self, handle: ScriptedHandle) -> None:
        self.released += 1

    async def update(self, version: int, weights: object = ()) -> None:
        self.version = version
