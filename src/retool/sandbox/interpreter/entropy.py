"""Makes an execution repeatable: whatever asks the system for randomness gets it from the execution's own seed.

Covered are `random` (also `Random()` and `SystemRandom()` without a seed), `os.urandom`, `secrets`, `uuid.uuid4`, and
NumPy's global generator and `default_rng()`, which all draw from the functions replaced here.
"""

import os
import random
import sys

_seed_generator = random.Random.seed
_seed_global_generator = super(random.Random, random._inst).seed  # for integers the method above adds nothing to it
_source: random.Random | None = None
_seed = 0


def install() -> None:
    """Replace the system's randomness in this process and its forks, each of which must call `seed`."""
    os.urandom = random._urandom = _urandom
    random.Random.seed = _seed_of_generator
    random.seed = random._inst.seed
    random._inst.gauss_next = None


def seed(number: int) -> None:
    """Let everything random follow from `number`, which is less than 2**64."""
    global _seed, _source
    _seed, _source = number, None
    _seed_global_generator(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number & 0xFFFFFFFF)


def _system() -> random.Random:
    """What takes the place of the system's source of randomness; made when it is first asked for, which is rare."""
    global _source
    if _source is None:
        _source = random.Random(_seed | 1 << 64)  # outside of the range of seeds, so never another one's generator
    return _source


def _urandom(size: int, /) -> bytes:
    """Return a bytes object containing random bytes suitable for cryptographic use."""
    if size < 0:
        raise ValueError("negative argument not allowed")
    return _system().randbytes(size)


def _seed_of_generator(self: random.Random, a: object = None, version: int = 2) -> None:
    """Initialize internal state from a seed."""
    _seed_generator(self, _system().getrandbits(256) if a is None else a, version)


_seed_of_generator.__name__, _seed_of_generator.__qualname__ = "seed", "Random.seed"
