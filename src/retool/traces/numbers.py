"""Numbers as solutions and programs write them: when two of them mean the same, and how to write one plainly."""

from __future__ import annotations

import re
from decimal import Decimal, localcontext

RELATIVE_TOLERANCE = Decimal("1e-9")  # more than the noise of a few float operations, less than any rounding by hand
SIGNIFICANT_DIGITS = 12  # a float's 17 digits end in noise: 0.1 * 3 prints 0.30000000000000004

# The exponent is bounded: what a program prints is hostile, and "1e999999999" written out would fill the memory.
_FRACTION = re.compile(r"([+-]?\d{1,40})/(\d{1,40})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)


def parse_number(text: str) -> Decimal | None:
    """The number that `text` is, blanks around it and commas between thousands aside; None if it is none."""
    text = text.strip()
    return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


def plain_number(text: str) -> str | None:
    """`text` without noise: "24.0" → "24", "0.30000000000000004" → "0.3", "1e+16" → "10000000000000000".

    Integers keep all their digits, everything else has at most twelve significant ones. None if it is no number.
    """
    number = parse_number(text)
    if number is None:
        return None
    if not text.strip().lstrip("+-").replace(",", "").isdigit():
        with localcontext(prec=SIGNIFICANT_DIGITS):
            number = +number
    plain = f"{number:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain == "-0" else plain


def agrees(claim: str, output: str) -> bool:
    """Is `output`, what a program printed, the value that a text states as `claim`?

    Integers must be equal, and other numbers and fractions (`7/2`) within a relative 1e-9; a claim with decimals may
    also be `output` rounded to those decimals (3.33 for 10/3, but not 3: a text that goes on with 3 means another
    number). What is no number must be the same text.
    """
    claimed, printed = _value(claim), _value(output)
    if claimed is None or printed is None:
        return claim.strip() == output.strip()
    if claimed == printed:
        return True
    if claimed == claimed.to_integral_value() and printed == printed.to_integral_value():
        return False
    tolerance = RELATIVE_TOLERANCE * max(abs(claimed), abs(printed))
    last_decimal = claimed.as_tuple().exponent
    if last_decimal < 0:
        tolerance = max(tolerance, Decimal((0, (5,), last_decimal - 1)))
    return abs(claimed - printed) <= tolerance


def _value(text: str) -> Decimal | None:
    """The value of a number or of a fraction."""
    fraction = _FRACTION.fullmatch(text.strip())
    if fraction is None or not int(fraction[2]):
        return parse_number(text)
    with localcontext(prec=50):
        return Decimal(fraction[1]) / Decimal(fraction[2])
