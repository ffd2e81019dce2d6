"""Does a text rely on an output that its author imagined, and that turned out differently?

Nobody can tell for sure from the text alone, so doubts count against it.
"""

from __future__ import annotations

import re

from retool.traces.notation import NUMBER
from retool.traces.numbers import agrees

_TOKENS = re.compile(rf"(?P<number>(?<![\w.])-?{NUMBER}(?:/\d+)?(?!\w|\.\d))|[^\W\d_]{{2,}}\w*")
_ERROR = re.compile(r"\b\w*(?:Error|Exception)\b")
_VERDICTS = frozenset({"true", "false", "none", "yes", "no", "nan", "inf", "oo"})


def relied_on(imagined: str, real: str, following: str) -> str | None:
    """What the `imagined` output has wrong and the `following` text relies on; None if there is nothing of the kind.

    - The same error, in whatever words, is the same output.
    - A wrong number is relied on if the text has it (rounded, perhaps), or has none of the real numbers instead.
    - A right number in the place of another one is relied on if the text has it.
    - Other words matter where an output is nothing but words, and verdicts such as True wherever the text has them.
    """
    errors = _ERROR.findall(imagined)
    if imagined.split() == real.split() or (errors and errors[-1] in _ERROR.findall(real)):
        return None
    imagined_numbers, imagined_words = _parts(imagined)
    real_numbers, real_words = _parts(real)
    numbers, words = _parts(following)
    wrong = [number for number in imagined_numbers if not _among(number, real_numbers)]
    for number in numbers:
        if _among(number, wrong) and not _among(number, real_numbers):
            return number
    if wrong and not any(_among(number, real_numbers) for number in numbers):
        return wrong[0]
    real_order = [number for number in real_numbers if _among(number, imagined_numbers)]
    imagined_order = [number for number in imagined_numbers if _among(number, real_numbers)]
    for number, in_its_place in zip(imagined_order, real_order, strict=False):
        if not agrees(number, in_its_place) and _among(number, numbers):
            return number
    others = [word for word in imagined_words if word not in real_words]
    if imagined_numbers:
        others = [word for word in others if word in _VERDICTS and word in words]
    return others[0] if others else None


def _among(number: str, numbers: list[str]) -> bool:
    return any(agrees(number, other) for other in numbers)


def _parts(text: str) -> tuple[list[str], list[str]]:
    """The numbers and the words (of two letters or more) of a text, each once, in order."""
    found = {(match[0].casefold(), match["number"] is not None): None for match in _TOKENS.finditer(text)}
    return [part for part, is_number in found if is_number], [part for part, is_number in found if not is_number]
