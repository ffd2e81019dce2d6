"""Draws that depend on the seed and a problem alone, not on the rows beside it."""

from __future__ import annotations

import hashlib


def draw(seed: int, problem_id: str, purpose: str = "") -> float:
    """A number in [0, 1), another one for each purpose."""
    name = f"{seed}/{problem_id}" + (f"/{purpose}" if purpose else "")
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
