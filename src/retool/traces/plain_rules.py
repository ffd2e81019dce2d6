"""Rules that know manual work in plain text when they see it, and the code that does the same work.

A rule looks for a plan: a sentence that says what is to be worked out ("We need 384 * 927 mod 61."). The manual steps
between the plan and the conclusion are what a computer would rather do; the rule gives the snippet that does them.
Rules read nothing but the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlainRule:
    """`plan` matches the sentence that states the task; `code` writes the snippet from what the sentence names."""

    name: str
    plan: re.Pattern[str]
    code: Callable[[re.Match[str]], str]


def _rule(name: str, plan: str, template: str) -> PlainRule:
    return PlainRule(name, re.compile(plan), lambda match: template.format(**match.groupdict()))


PLAIN_RULES = (
    _rule("product modulo", r"We need (?P<a>\d+) \* (?P<b>\d+) mod (?P<n>\d+)\.", "print({a} * {b} % {n})"),
    _rule("power modulo", r"We need (?P<a>\d+)\^(?P<e>\d+) mod (?P<n>\d+)\.", "print(pow({a}, {e}, {n}))"),
    _rule("gcd", r"We need the gcd of (?P<a>\d+) and (?P<b>\d+)\.", "import math\nprint(math.gcd({a}, {b}))"),
    _rule("lcm", r"We need the lcm of (?P<a>\d+) and (?P<b>\d+)\.", "import math\nprint(math.lcm({a}, {b}))"),
    _rule(
        "digit sum of a power",
        r"We need the digit sum of (?P<a>\d+)\^(?P<e>\d+)\.",
        "print(sum(map(int, str({a} ** {e}))))",
    ),
    _rule(
        "count multiples",
        r"We count n from (?P<low>\d+) to (?P<high>\d+) with (?P<a>\d+) \| n or (?P<b>\d+) \| n\.",
        "print(sum(n % {a} == 0 or n % {b} == 0 for n in range({low}, {high} + 1)))",
    ),
    _rule(
        "count by digit sum",
        r"We count n from (?P<low>\d+) to (?P<high>\d+) with digit sum (?P<total>\d+)\.",
        "print(sum(sum(map(int, str(n))) == {total} for n in range({low}, {high} + 1)))",
    ),
    _rule(
        "two equations",
        r"We solve (?P<a>\d+)x \+ (?P<b>\d+)y = (?P<p>\d+) and (?P<c>\d+)x \+ (?P<d>\d+)y = (?P<q>\d+) for x\.",
        "for x in range(99):\n    for y in range(99):\n"
        "        if {a} * x + {b} * y == {p} and {c} * x + {d} * y == {q}:\n            print(x)",
    ),
    _rule(
        "number base",
        r"We write (?P<n>\d+) in base (?P<base>\d+)\.",
        'n = {n}\ndigits = ""\nwhile n:\n    digits = str(n % {base}) + digits\n    n //= {base}\nprint(digits)',
    ),
    _rule(
        "sum of powers",
        r"We sum n\^(?P<power>\d+) for n from (?P<low>\d+) to (?P<high>\d+)\.",
        "print(sum(n ** {power} for n in range({low}, {high} + 1)))",
    ),
    _rule(
        "largest prime factor",
        r"We need the largest prime factor of (?P<n>\d+)\.",
        "n = {n}\np = 2\nwhile p < n:\n    if n % p:\n        p += 1\n    else:\n        n //= p\nprint(n)",
    ),
)
