"""One answer in two notations: what LaTeX formatting, units in words and number bases add to it."""

from __future__ import annotations

import re

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|underline)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))")
_SPACE = re.compile(r"\\[,;: ]|~|\\q?quad\b|\s+")
_NOTHING = re.compile(r"\\(?:left|right|displaystyle)\b|\\!|\\\(|\\\)|(?<!\\)\$")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_WITH_UNIT = re.compile(r"\\?\$?([+-]?\d[\d,]*(?:\.\d+)?)\s+([A-Za-z]{3,}(?:\s+[A-Za-z]+)*)\.?")
_SCALES = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "score", "pair", "pairs", "and", "mod"}
_IN_BASE = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?(\d+)\}?")


def plain(text: str) -> str:
    """`text` without what only changes its looks: spacing, fonts, dollar signs around it, `\\left` and `\\right`, thin
    spaces between thousands, a full stop at the end."""
    text = _SPACE.sub(" ", _WRAPPER.sub(r" \1 ", _THOUSANDS.sub("", _NOTHING.sub("", text))))
    return " ".join(text.split()).removesuffix(".").rstrip()


def same_text(answer: str, reference: str) -> bool:
    """Do they differ in looks only? True surely means equal; False means nothing."""
    ours, theirs = (_LOOSE_SPACE.sub("", plain(text)) for text in (answer, reference))
    return ours == theirs != ""


def without_unit(answer: str, reference: str) -> str | None:
    """The number in `18 dollars a day` where `reference` is a number without a unit; None where there is no such thing,
    or the word says how many (`18 million`)."""
    if not _NUMBER.fullmatch(plain(reference)):
        return None
    match = _WITH_UNIT.fullmatch(plain(answer))
    return match[1] if match and not _SCALES & set(match[2].lower().split()) else None


def same_in_base(answer: str, reference: str) -> bool | None:
    """For numbers that both name their base, `4210_{5}`: are digits and base the same? None for anything else."""
    ours, theirs = (_IN_BASE.fullmatch(plain(text).replace(" ", "")) for text in (answer, reference))
    return ours.groups() == theirs.groups() if ours and theirs else None
