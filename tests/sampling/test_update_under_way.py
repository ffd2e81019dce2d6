"""Weights that change in the middle of a segment: it goes on, and says which weights wrote what."""

from __future__ import annotations

import asyncio

import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, Segment
from retool.types import Author, Span

PROMPT = [5, 6, 7, 8]


def sample(model: PreTrainedModel, updates: dict[int, int], tokens: int = 12) -> Segment:
    """A segment during which the weights become those of another version, and others, after so many tokens."""

    async def main() -> Segment:
        engine = Engine(model, rows=2, capacity=64)
        written = asyncio.Event()

        def stop(out: list[int]) -> bool:
            if len(out) in updates:
                written.set()
            return False

        async def update() -> None:
            for version in updates.values():
                await written.wait()
                written.clear()
                with torch.no_grad():
                    model.get_output_embeddings().weight.add_(torch.randn_like(model.get_output_embeddings().weight))
                await engine.update(version)

        params = SamplingParams(SamplingConfig(), tokens, frozenset())
        updating = asyncio.create_task(update())
        segment = await engine.extend(None, PROMPT, params, stop, key=1)
        await updating
        return segment

    return asyncio.run(main())


def test_a_segment_says_where_newer_weights_went_on(model: PreTrainedModel) -> None:
    undisturbed = sample(model, {})
    segment = sample(model, {5: 3, 8: 4})
    (first, three), (second, four) = segment.updates
    assert (segment.version, three, four) == (0, 3, 4)
    assert 5 <= first <= 6 and 8 <= second <= 9
    assert segment.ids[:first] == undisturbed.ids[:first] and segment.ids != undisturbed.ids
    span = Span(Author.MODEL, segment.ids, "", version=segment.version, updates=segment.updates)
    assert span.versions() == [0] * first + [3] * (second - first) + [4] * (12 - second)


def test_what_is_written_by_one_version_has_no_updates(model: PreTrainedModel) -> None:
    assert sample(model, {}).updates is None
    assert Span(Author.MODEL, [1, 2], "", version=7).versions() == [7, 7]
    assert Span(Author.INTERPRETER, [], "").versions() == []
