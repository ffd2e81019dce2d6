"""Estimators over repeated samples of the same problems: bootstrap interval, pass@k, maj@k. Fractions are 0-1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np

RESAMPLES_AT_ONCE = 500
"""Bounds the memory of the bootstrap: this many resamples, each the size of the problem set, are held at a time."""


def bootstrap_interval(
    scores: Sequence[float], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `scores`, one score a problem.

    Problems are what is resampled, not samples: the samples of one problem are not independent, so a score is the mean
    over a problem's samples (cluster bootstrap; Davison & Hinkley 1997, section 3.8). The end points are order
    statistics, hence values that the mean can take. If all scores are the same, nothing varies and the interval has no
    width; with few problems it is too narrow.
    """
    values = np.asarray(scores, dtype=np.float64)
    problems = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        last = min(first + RESAMPLES_AT_ONCE, resamples)
        drawn = rng.integers(problems, size=(last - first, problems))
        means[first:last] = values[drawn].mean(axis=1)
    tail = (1 - confidence) / 2
    low = np.quantile(means, tail, method="inverted_cdf")
    high = np.quantile(means, 1 - tail, method="inverted_cdf")
    return float(low), float(high)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that at least one of `k` samples is right, when `right` of `samples` are.

    The unbiased estimator of Chen et al. 2021 (https://arxiv.org/abs/2107.03374, equation 1): the share of the
    k-subsets of the samples that hold a right one.
    """
    _check_k(k, samples)
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority_at_k(right: int, wrong: Sequence[int], k: int, abstained: int = 0) -> float:
    """Probability that a vote among `k` samples elects the right answer (self-consistency, maj@k).

    Of all samples, `right` gave the right answer, `wrong` counts those of each wrong answer, and `abstained` gave none:
    these take a place among the k, but have no vote. Ties are broken evenly. Like `pass_at_k` it is exact over all
    k-subsets of the samples, so it depends neither on their order nor on a seed.
    """
    _check_k(k, right + sum(wrong) + abstained)
    return _majority(right, tuple(sorted(wrong)), k, abstained)


@cache
def _majority(right: int, wrong: tuple[int, ...], k: int, abstained: int) -> float:
    won = 0.0
    for top in range(1, min(right, k) + 1):  # the right answer has `top` of the k votes, and no other has more
        ways = _subsets_without_more_votes(top, wrong, k - top, abstained)
        won += comb(right, top) * sum(count / (1 + tied) for tied, count in enumerate(ways))
    return won / comb(right + sum(wrong) + abstained, k)


def _subsets_without_more_votes(top: int, wrong: tuple[int, ...], size: int, abstained: int) -> list[int]:
    """Of the subsets of `size` among the samples that are not right: in how many are `tied` answers level with `top`?

    Index `tied` of the returned list; subsets in which an answer has more than `top` votes are not counted.
    """
    ways = {(0, 0): 1}  # (samples taken so far, answers level with `top`) -> number of subsets
    for votes in wrong:
        grown: dict[tuple[int, int], int] = {}
        for (taken, tied), count in ways.items():
            for more in range(min(votes, top, size - taken) + 1):
                state = taken + more, tied + (more == top)
                grown[state] = grown.get(state, 0) + count * comb(votes, more)
        ways = grown
    totals = [0] * (len(wrong) + 1)
    for (taken, tied), count in ways.items():
        totals[tied] += count * comb(abstained, size - taken)
    return totals


def _check_k(k: int, samples: int) -> None:
    if not 1 <= k <= samples:
        raise ValueError(f"k must be between 1 and the number of samples ({samples}), found {k}")
