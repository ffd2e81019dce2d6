"""Two evaluations of the same problems: the paired difference, its interval, and how likely chance is to make it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from retool.errors import UsageError
from retool.evaluation.statistics import bootstrap_interval
from retool.types import Trajectory

LARGEST_LATTICE = 1 << 20
"""Sums of differences that the exact test tells apart; beyond, signs are drawn."""
DRAWN_SIGNS = 20_000
DRAWN_AT_ONCE = 500


def compare(
    first: Sequence[Trajectory], second: Sequence[Trajectory], *, seed: int = 0, resamples: int = 10_000
) -> dict[str, Any]:
    """What changes from `first` to `second`, on the problems that both have. All fractions are 0-1.

    Problems are the same if their texts are, up to white space; each counts once, whatever its number of samples.
    Returns a JSON object: `problems` that both have, `only` [first's, second's], `accuracy` [first, second] over the
    shared ones, `difference` (second − first) with `ci95` [low, high], a bootstrap over problems of the paired
    differences, `p_value` of `sign_flip_test`, and on how many problems the second is `better`, `worse` and `equal`.
    Raises UsageError if no problem is shared.
    """
    scores, others = _scores(first), _scores(second)
    shared = sorted(scores.keys() & others.keys())
    if not shared:
        raise UsageError(
            f"the two evaluations share no problem ({len(scores)} and {len(others)} problems): a paired comparison "
            "needs the same ones; evaluate both systems on the same data"
        )
    pairs = [(scores[text], others[text]) for text in shared]
    differences = [after - before for before, after in pairs]
    return {
        "problems": len(shared),
        "only": [len(scores) - len(shared), len(others) - len(shared)],
        "accuracy": [float(sum(side) / len(shared)) for side in zip(*pairs, strict=True)],
        "difference": float(sum(differences) / len(shared)),
        "ci95": list(bootstrap_interval([float(d) for d in differences], seed=seed, resamples=resamples)),
        "p_value": sign_flip_test(differences, seed=seed),
        "better": sum(difference > 0 for difference in differences),
        "worse": sum(difference < 0 for difference in differences),
        "equal": sum(difference == 0 for difference in differences),
    }


def sign_flip_test(differences: Sequence[Fraction], *, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: were it all the same which of two systems an answer came from,
    how often would the mean difference be at least as far from 0 as it is?

    Under that hypothesis each problem's difference is as likely to have the other sign (Fisher 1935, chapter 3; Good
    2005, section 3.2). All 2^n choices of signs are counted: differences are multiples of one fraction, so that few
    sums can occur, and how many choices make each sum follows problem by problem. With one sample a problem this is the
    exact McNemar test. Where numbers of samples differ so much that too many sums can occur, signs are drawn, and the
    p-value is (1 + choices as far) / (1 + choices).
    """
    unit = lcm(*(difference.denominator for difference in differences))
    sizes = [abs(int(difference * unit)) for difference in differences if difference]
    observed = abs(int(sum(differences) * unit))
    if sum(sizes) <= LARGEST_LATTICE:
        return _exact(sizes, observed)
    return _drawn(np.array(sizes, dtype=np.float64), observed, np.random.default_rng(seed))


def _exact(sizes: Sequence[int], observed: int) -> float:
    total = sum(sizes)
    probability = np.zeros(total + 1)  # of each sum of those with a plus
    probability[0] = 1.0
    reached = 0
    for size in sizes:
        halved = probability[: reached + 1] / 2
        probability[: reached + 1] = halved
        probability[size : reached + size + 1] += halved
        reached += size
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(probability[np.abs(sums) >= observed].sum()))


def _drawn(sizes: np.ndarray, observed: float, rng: np.random.Generator) -> float:
    as_far = 0
    for _ in range(DRAWN_SIGNS // DRAWN_AT_ONCE):
        signs = rng.integers(2, size=(DRAWN_AT_ONCE, len(sizes))) * 2.0 - 1.0
        as_far += int((np.abs(signs @ sizes) >= observed * (1 - 1e-12)).sum())
    return (1 + as_far) / (1 + DRAWN_SIGNS)


def _scores(trajectories: Sequence[Trajectory]) -> dict[str, Fraction]:
    """The share of right samples of each problem, by its text."""
    right: dict[str, list[bool]] = {}
    for trajectory in trajectories:
        right.setdefault(" ".join(trajectory.problem.text.split()), []).append(trajectory.correct)
    return {text: Fraction(sum(samples), len(samples)) for text, samples in right.items()}
