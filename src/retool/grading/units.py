"""Units that answers name: `18 dollars`, `\\$18`, `5\\text{ cm}^2`, `9 (apples)`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retool.grading.notation import plain

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
_WORDS = r"[A-Za-z][A-Za-z.]*(?: [A-Za-z][A-Za-z.]*)*"
_WITH_UNIT = re.compile(
    rf"(?P<value>.*[\d}}!])\s*\(?(?<![\\A-Za-z])(?P<words>\\?%|{_WORDS})\)?\s*(?:\^\s*\{{?(?P<power>[23])\}}?)?"
)
_DOLLARS = re.compile(r"\s*\\?\$\s*(?P<value>[+-]?[\d.][^$]*)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_SCALES = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "score", "pair", "pairs", "and", "mod"}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_SPELLINGS = (
    ("%", r"\%", "percent"),
    ("dollars", "dollar"),
    ("cents", "cent"),
    ("mm", "millimeters", "millimeter", "millimetres", "millimetre"),
    ("cm", "centimeters", "centimeter", "centimetres", "centimetre"),
    ("m", "meters", "meter", "metres", "metre"),
    ("km", "kilometers", "kilometer", "kilometres", "kilometre"),
    ("inches", "inch", "in"),
    ("feet", "foot", "ft"),
    ("yards", "yard", "yd"),
    ("miles", "mile", "mi"),
    ("mph", "miles per hour"),
    ("seconds", "second", "sec", "s"),
    ("minutes", "minute", "min", "mins"),
    ("hours", "hour", "hr", "hrs", "h"),
    ("am", "a.m", "a.m."),
    ("pm", "p.m", "p.m."),
    ("days", "day"),
    ("weeks", "week"),
    ("months", "month"),
    ("years", "year"),
    ("g", "grams", "gram"),
    ("kg", "kilograms", "kilogram"),
    ("pounds", "pound", "lb", "lbs"),
    ("ounces", "ounce", "oz"),
    ("ml", "milliliters", "milliliter", "millilitres", "millilitre"),
    ("l", "liters", "liter", "litres", "litre"),
    ("degrees", "degree"),
    ("radians", "radian"),
)
_KNOWN = {spelling: spellings[0] for spellings in _SPELLINGS for spelling in spellings}


@dataclass(frozen=True, slots=True)
class Amount:
    """A value as it is written, the unit after it ("" for none), and whether that is one of those known here, in which
    case all its spellings are one: `square inches` and `in^2`."""

    value: str
    unit: str
    known: bool

    @property
    def is_number(self) -> bool:
        return _NUMBER.fullmatch(self.value) is not None


def units_differ(answer: str, reference: str) -> bool:
    """Do both name a unit, and not the same (`6 hours`, `6 minutes`)? Units that are not known differ if they share no
    word: `9 ripe apples` may be `9 apples`. Nothing is converted."""
    ours, theirs = read_amount(answer), read_amount(reference)
    if not ours.unit or not theirs.unit or ours.unit == theirs.unit:
        return False
    return (ours.known and theirs.known) or not _words(ours.unit) & _words(theirs.unit)


def without_units(answer: str, reference: str) -> tuple[str, str] | None:
    """The two values, if the units, which do not differ, say nothing more: both name one, or one names none and both
    values are plain numbers. None for anything else, such as `18 million` or a percentage beside a number."""
    ours, theirs = read_amount(answer), read_amount(reference)
    units = {ours.unit, theirs.unit} - {""}
    if ours.unit and theirs.unit:
        return ours.value, theirs.value
    if units and "%" not in units and ours.is_number and theirs.is_number:
        return ours.value, theirs.value
    return None


def read_amount(text: str) -> Amount:
    """The value of `text` and its unit. Words that are neither known nor longer than two letters, or that say how many
    (`million`), are no unit."""
    dollars = _DOLLARS.fullmatch(text) if text.count("$") == 1 else None
    written = plain(dollars["value"] if dollars else text)
    match = _WITH_UNIT.fullmatch(written)
    if match is None or any(map(str.isalpha, _COMMAND.sub("", match["value"]))):
        return Amount(written, "dollars", True) if dollars else Amount(written, "", False)
    first, *others = match["words"].lower().split()
    power = match["power"] or (_POWERS.get(first) if others else None)
    name = " ".join(others) if first in _POWERS and others else " ".join([first, *others])
    if name in _KNOWN:
        return Amount(match["value"], _KNOWN[name] + (f"^{power}" if power else ""), True)
    if _SCALES & {first, *others} or len(first) < 3:
        return Amount(written, "", False)
    return Amount(match["value"], name, False)


def _words(unit: str) -> set[str]:
    """The words of a unit, plural or not."""
    return {word.removesuffix("s") for word in unit.split()}
