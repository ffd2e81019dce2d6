"""Counter-based random numbers: a pure function of (trajectory, position), so no state and no order matters."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one per (key, position); both uint64 of one shape, result float64 of that shape.

    SplitMix64 (Steele, Lea, Flood 2014): the state is `key + (position + 1) * golden`, the output its mix.
    """
    z = keys + (positions + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53
