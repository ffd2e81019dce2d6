"""A short string, found in (or kept out of) a stream of token ids however it is split into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from retool.protocol.codec import Codec


class Marker:
    """An ASCII string such as `</code>`, looked for in ids at every decode step of every row.

    Whether the last id can have to do with the string at all is one set look-up; only then are as many ids decoded as
    the string has characters, which is as far back as it can begin.
    """

    def __init__(self, text: str, codec: Codec):
        self.text = text
        self._codec = codec

    def completed(self, ids: Sequence[int]) -> bool:
        """Does the newest of `ids` complete the string?"""
        if not len(ids) or ids[-1] not in self._closing:
            return False
        tail = ids[-len(self.text) :]
        return self._codec.decode(tail).count(self.text) > self._codec.decode(tail[:-1]).count(self.text)

    def completions(self, ids: Sequence[int]) -> np.ndarray:
        """Ids that would complete the string after `ids`: a shared, read-only int64 array, shape (n,)."""
        if not len(ids) or ids[-1] not in self._open:
            return self._completions[0]
        tail = self._codec.decode(ids[-len(self.text) :])
        begun = next(n for n in range(len(self.text) - 1, -1, -1) if tail.endswith(self.text[:n]))
        return self._completions[begun]

    @cached_property
    def _closing(self) -> frozenset[int]:
        """Ids whose text can hold the end of the string: all of it, or its last part at the token's start."""
        ends = tuple(self.text[n:] for n in range(1, len(self.text)))
        last = self.text[-1]
        return frozenset(
            i for i, t in enumerate(self._codec.texts) if last in t and (self.text in t or t.startswith(ends))
        )

    @cached_property
    def _open(self) -> frozenset[int]:
        """Ids after which a stream can end in a beginning of the string (ids without text leave it as it was)."""
        beginnings = tuple(self.text[:n] for n in range(1, len(self.text)))
        inner = {beginning[n:] for beginning in beginnings for n in range(len(beginning) + 1)}
        return frozenset(i for i, t in enumerate(self._codec.texts) if t in inner or t.endswith(beginnings))

    @cached_property
    def _completions(self) -> list[np.ndarray]:
        """For each number of characters of the string that are there already, the ids that complete it."""
        arrays = []
        for length in range(len(self.text)):
            begun, last = self.text[:length], self.text[-1]
            ids = [i for i, t in enumerate(self._codec.texts) if last in t and self.text in begun + t]
            array = np.array(ids, dtype=np.int64)
            array.flags.writeable = False
            arrays.append(array)
        return arrays
