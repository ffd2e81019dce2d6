"""Was one snippet made from another?"""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from functools import lru_cache

_IMPORT = re.compile(r"^[ \t]*(?:from|import)\b.*$", re.MULTILINE)
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(
    r"(?P<string>\"{3}.*?\"{3}|'{3}.*?'{3}|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|#[^\n]*|(?P<number>\d[\w.]*)|(?P<name>\w+)",
    re.DOTALL,
)
_PYTHONS_OWN = {*keyword.kwlist, *dir(builtins)}


def similarity(old: str, new: str) -> float:
    """How much of `old` is found again in `new`, 0-1, as multisets of *content*: the names that the code gives or uses,
    its numbers and its strings, without Python's own words (keywords, builtins) and those of its import lines.

    The larger of Dice's coefficient and of the share of `old` that is in `new`, so that a script grows without becoming
    another one; the latter only if they have two different things in common, not only digits. 0 if one of them has no
    content. Neither has to be valid Python.
    """
    a, b = _content(old), _content(new)
    if not a or not b:
        return 0.0
    shared = a & b
    dice = 2 * shared.total() / (a.total() + b.total())
    return max(dice, shared.total() / a.total()) if len(shared) > 1 and _is_specific(shared) else dice


def are_related(old: str, new: str) -> bool:
    """Have they any content in common, beside single digits?"""
    return _is_specific(_content(old) & _content(new))


def _is_specific(shared: Counter[str]) -> bool:
    return any(len(token) > 1 or not token.isdigit() for token in shared)


@lru_cache(maxsize=256)
def _content(code: str) -> Counter[str]:
    ignored = _PYTHONS_OWN | set(_WORD.findall(" ".join(_IMPORT.findall(code))))
    tokens = (token for token in _TOKEN.finditer(_IMPORT.sub("", code)) if token.lastgroup)
    return Counter(token[0] for token in tokens if token[0] not in ignored)
