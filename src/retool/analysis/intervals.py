"""Bootstrap intervals over problems for ratios of sums: shares, means and means over a part of the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_DRAWN_AT_ONCE = 2_000_000  # numbers, which bounds the memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio with its 95 % interval; None where it is undefined: nothing to divide by, or something not known."""

    value: float | None
    low: float | None
    high: float | None

    def times(self, factor: float) -> Estimate:
        """Of a mean over that number of responses: their sum."""
        if self.value is None:
            return self
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def estimate(
    numerators_TM: np.ndarray, denominators_TM: np.ndarray, problems: Sequence[str], *, seed: int = 0
) -> list[Estimate]:
    """For each of M metrics the sum of its numerators over T responses by the sum of its denominators.

    The interval is the percentile bootstrap over problems (`problems`: T ids), whose responses stay together, as they
    are not independent of each other; both sums are drawn anew. Resamples in which a metric is undefined do not count
    for it. With few problems intervals are too narrow, with one they have no width.
    """
    ids, place_T = np.unique(np.asarray(problems, dtype=object).astype(str), return_inverse=True)
    sums_P2M = np.zeros((len(ids), 2 * numerators_TM.shape[1]))
    np.add.at(sums_P2M, place_T, np.hstack([numerators_TM, denominators_TM]))
    drawn_R2M = _resample(sums_P2M, np.random.default_rng(seed))
    values_M = ratio(*np.split(sums_P2M.sum(axis=0), 2))
    drawn_RM = ratio(*np.split(drawn_R2M, 2, axis=1))
    found = []
    for metric, value in enumerate(values_M):
        drawn = drawn_RM[:, metric][~np.isnan(drawn_RM[:, metric])]
        if np.isnan(value) or not len(drawn):
            found.append(Estimate(None, None, None))
            continue
        low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
        found.append(Estimate(float(value), float(low), float(high)))
    return found


def _resample(sums_PK: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`RESAMPLES` sums over as many problems as there are, drawn with replacement: [R, K]."""
    problems = len(sums_PK)
    at_once = max(1, _DRAWN_AT_ONCE // problems)
    totals = []
    for first in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - first)
        drawn = rng.integers(problems, size=(count, problems)) + problems * np.arange(count)[:, None]
        times_RP = np.bincount(drawn.ravel(), minlength=count * problems).reshape(count, problems)
        totals.append(times_RP @ sums_PK)
    return np.vstack(totals)


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Their quotients, nan where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=denominators != 0)
