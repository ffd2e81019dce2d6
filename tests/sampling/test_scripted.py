"""The scripted sampler keeps the contract of every sampler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from retool.config.sampling import SamplingConfig
from retool.sampling.sampler import SamplingParams, Segment
from retool.sampling.scripted import ScriptedSampler


def extend(sampler: ScriptedSampler, handle: object, ids: Sequence[int], max_tokens: int = 10) -> Segment:
    params = SamplingParams(SamplingConfig(), max_tokens, frozenset({0}))
    return asyncio.run(sampler.extend(handle, ids, params, lambda out: out[-1] == 7, key=1))


def test_a_segment_ends_for_the_first_reason_that_comes() -> None:
    found = [extend(ScriptedSampler(lambda _, s=s: s), None, [1]) for s in ([5, 0, 6], [5, 7, 6], [5, 6])]
    assert [(s.ids, s.stop) for s in found] == [([5, 0], "eos"), ([5, 7], "stop"), ([5, 6], "length")]
    cut = extend(ScriptedSampler(lambda _: [5, 6, 0]), None, [1], max_tokens=2)
    assert (cut.ids, cut.stop, cut.logprobs) == ([5, 6], "length", [0.0, 0.0])


def test_the_script_sees_everything_so_far() -> None:
    seen: list[list[int]] = []
    sampler = ScriptedSampler(lambda ids: seen.append(ids) or [5, 7])
    first = extend(sampler, None, [1, 2])
    second = extend(sampler, first.handle, [3])
    assert seen == [[1, 2], [1, 2, 5, 7, 3]]
    sampler.release(second.handle)
    assert sampler.released == 1
