"""What is known of each token of a trajectory, as JSON for the page: small numbers that compress well.

Log-probs and advantages are kept in hundredths, the gap between learner and sampler in ten-thousandths of a nat.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from math import isfinite
from typing import Any

from retool.reporting.entry import Entry
from retool.reporting.printable import printable
from retool.types import Author

HUNDREDTHS, TEN_THOUSANDTHS = 100, 10_000


def tokens_of(entry: Entry) -> dict[str, Any] | None:
    """None where text is all there is.

    `pieces` has all tokens of the response: their texts, or their ids where no tokenizer is at hand. The rest is over
    the model's tokens only: `logprobs` as sampled, and, if it was learned from, `gap` (learner − sampler) and
    `advantages`.
    """
    spans = entry.trajectory.spans
    if not spans or any(span.ids is None for span in spans):
        return None
    ids = entry.trajectory.response_ids
    written = [span for span in spans if span.author is Author.MODEL]
    found: dict[str, Any] = {
        "pieces": ids if entry.pieces is None else [_shown(entry.pieces[token]) for token in ids],
    }
    if any(span.logprobs is None for span in written):
        return found
    sampled = list(chain.from_iterable(span.logprobs for span in written))
    found["logprobs"] = _whole(sampled, HUNDREDTHS)
    if entry.learner is not None:
        gaps = (learner - sampler for learner, sampler in zip(entry.learner.logprobs, sampled, strict=True))
        found["gap"] = _whole(gaps, TEN_THOUSANDTHS)
        found["advantages"] = _whole(entry.learner.advantages, HUNDREDTHS)
    return found


def mean_gap(entry: Entry) -> float | None:
    """Mean distance of the learner's log-probs from the sampler's, in nats a token; None if it was not learned from."""
    if entry.learner is None or not len(entry.learner.logprobs):
        return None
    sampled = chain.from_iterable(s.logprobs or () for s in entry.trajectory.spans if s.author is Author.MODEL)
    distances = [abs(a - b) for a, b in zip(entry.learner.logprobs, sampled, strict=True)]
    return float(sum(distances) / len(distances))


_shown = lru_cache(maxsize=1 << 16)(printable)


def _whole(values: Iterable[float], scale: int) -> list[int | None]:
    return [round(value * scale) if isfinite(value) else None for value in map(float, values)]
