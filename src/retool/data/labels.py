"""Do the answers that two copies of a problem carry agree?"""

from __future__ import annotations

import re
from decimal import Decimal

_INTEGER = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.0*)?")


def agree(label: str, other: str) -> bool:
    """True for the same text, and for the same integer in two notations that grading takes for one: `1,234`, `1234`."""
    return label == other or (_integer(label) is not None and _integer(label) == _integer(other))


def _integer(label: str) -> Decimal | None:
    label = label.strip().strip("$").replace("\\$", "").replace("\\!", "").replace("{,}", ",").replace("−", "-").strip()
    match = _INTEGER.fullmatch(label)
    return Decimal(match.group().split(".")[0].replace(",", "")) if match else None
