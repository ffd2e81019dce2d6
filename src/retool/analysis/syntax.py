"""Code of models as syntax trees: it may be no Python, and nested deeper than Python's own functions go."""

from __future__ import annotations

import ast
import hashlib
import warnings
from functools import lru_cache

_CUTS = 8  # times that a program is cut shorter until it parses


def longest_program(code: str) -> ast.Module | None:
    """The tree of `code`, or of its lines before the first error; None if these hold no statement."""
    for _ in range(_CUTS):
        tree, line = _parse(code)
        if tree is not None:
            return tree if tree.body else None
        if line is None:
            return None
        lines = code.split("\n")
        code = "\n".join(lines[: min(line, len(lines)) - 1])
    return None


def same_program(a: str, b: str) -> bool:
    """Do they differ in comments, blank lines and layout at most?"""
    return a == b or _fingerprint(a) == _fingerprint(b)


@lru_cache(maxsize=4096)
def _fingerprint(code: str) -> bytes:
    """Stands for the syntax tree of `code`, or for its lines where it has none."""
    tree = _parse(code)[0]
    content = _lines(code) if tree is None else _flat(tree)
    return hashlib.blake2b(repr(content).encode(errors="backslashreplace"), digest_size=16).digest()


def _parse(code: str) -> tuple[ast.Module | None, int | None]:
    """The tree, or the line of the error, counted from 1, where Python names one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in strings, which are the model's affair
            return ast.parse(code), None
    except SyntaxError as error:
        return None, error.lineno
    except (ValueError, RecursionError, MemoryError):  # a null character or surrogate; nested too deeply
        return None, None


def _flat(tree: ast.Module) -> list[tuple[str, list[str]]]:
    """The nodes in order, each with what it holds beside other nodes. Two trees are equal if these are."""
    return [
        (type(node).__name__, [_leaf(value) for _, value in ast.iter_fields(node) if not isinstance(value, ast.AST)])
        for node in ast.walk(tree)
    ]


def _leaf(value: object) -> str:
    if isinstance(value, list):
        return repr([None if isinstance(item, ast.AST) else item for item in value])
    if type(value) is int:
        return hex(value)  # which has no limit, as digits have
    return repr(value)  # 1, 1.0 and True are equal, and not the same


def _lines(code: str) -> list[str]:
    lines = (line.rstrip() for line in code.split("\n"))
    return [line for line in lines if line and not line.lstrip().startswith("#")]
