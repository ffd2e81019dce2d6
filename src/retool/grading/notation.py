"""One answer in two notations: what LaTeX formatting, number bases and brackets add to it."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|underline)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))")
_SPACE = re.compile(r"\\[,;: ]|~|\\q?quad\b|\s+")
_NOTHING = re.compile(r"\\(?:left|right|displaystyle)\b|\\!|\\\(|\\\)|(?<!\\)\$")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_IN_BASE = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?(\d+)\}?")
_DIGITS = re.compile(r"\d+")
_BRACKET = re.compile(r"\\[{}]|[()\[\],]")
_OPENING = {"(", "[", "\\{"}
_MIXED = re.compile(r"([+-]?\d+) (\d+)/(\d+)")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar)\s*(?:\{(\d+)\}|(\d))")


def plain(text: str) -> str:
    """`text` without what only changes its looks: spacing, fonts, dollar signs around it, `\\left` and `\\right`, thin
    spaces between thousands, a full stop at the end."""
    text = _SPACE.sub(" ", _WRAPPER.sub(r" \1 ", _THOUSANDS.sub("", _NOTHING.sub("", text))))
    return " ".join(text.split()).removesuffix(".").rstrip()


def same_text(answer: str, reference: str) -> bool:
    """Do they differ in looks only? True surely means equal; False means nothing."""
    ours, theirs = (_LOOSE_SPACE.sub("", plain(text)) for text in (answer, reference))
    return ours == theirs != ""


def same_in_base(answer: str, reference: str) -> bool | None:
    """For numbers that both name their base, `4210_{5}`: are digits and base the same? An answer in another base than
    ten is not a reference that names none. None for anything else."""
    ours, theirs = (_IN_BASE.fullmatch(plain(text).replace(" ", "")) for text in (answer, reference))
    if ours and theirs:
        return ours.groups() == theirs.groups()
    if ours and ours[2] != "10" and _DIGITS.fullmatch(ours[1]) and _DIGITS.fullmatch(plain(reference)):
        return False
    return None


def other_brackets(answer: str, reference: str) -> bool:
    """Are they as many intervals, tuples or sets, with other brackets around them?"""
    ours, theirs = _lists(answer), _lists(reference)
    return ours.total() == theirs.total() and ours != theirs


def _lists(text: str) -> Counter[str]:
    """The pairs of brackets on the outside of `text` that have a comma right inside them."""
    found: Counter[str] = Counter()
    opened: list[list[str]] = []
    for bracket in _BRACKET.findall(text):
        if bracket in _OPENING:
            opened.append([bracket])
        elif bracket == ",":
            if opened:
                opened[-1].append(bracket)
        elif opened:
            first, *commas = opened.pop()
            if commas and not opened:
                found[first + bracket] += 1
    return found


def with_fractions(text: str) -> str:
    """`text` with its repeating decimals as fractions (`0.1\\overline{6}` is 1/6); a mixed number (`1 1/2`) as LaTeX
    writes it."""
    mixed = _MIXED.fullmatch(plain(text))
    return rf"{mixed[1]}\frac{{{mixed[2]}}}{{{mixed[3]}}}" if mixed else _REPEATING.sub(_fraction, text)


def _fraction(repeating: re.Match[str]) -> str:
    once, again = repeating[2], repeating[3] or repeating[4]
    steady = Fraction(int(f"0{repeating[1]}{once}"), 10 ** len(once))
    value = steady + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
