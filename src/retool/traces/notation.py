"""Mathematics as people type it, plainly or in LaTeX (`24 x $.50`, `\\frac{3}{4} \\cdot 80 = 60`), cut into tokens.

A text is cut into runs: stretches of tokens that may be one chain of equalities. What looks like mathematics and is
none (a time of day, a name such as A4) stays in its run and makes it unreadable, which is the point: a step is taken
only where everything beside it is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

NUMBER = r"(?:\d{1,3}(?:(?:,|\{,\}|\\!,|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"


class Sort(StrEnum):
    """What a token is; `MARK` are operators and brackets."""

    NUMBER = "number"
    LETTER = "letter"
    FUNCTION = "function"
    MARK = "mark"
    EQUALS = "equals"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Token:
    """What was typed at `start:end`; `text` is one spelling for all there are: `*` for `\\cdot`, `×` and `times`."""

    sort: Sort
    text: str
    start: int
    end: int


_COMMAND_END = r"(?![a-zA-Z])"
# In this order; a name with a text in _SPELLED is that text, and one without a sort in _SORTS is no token at all.
_LEXEMES = (
    ("bullet", r"(?m:^)[^\S\n]*(?:[-*•–]|\(?(?:\d{1,2}|[a-zA-Z])\))[^\S\n]+(?=[^\s=^/*+-])"),
    ("number", NUMBER),
    ("space", rf"[^\S\n]+|\\[,;!: ]|~|\\(?:q?quad|left|right|displaystyle){_COMMAND_END}|&"),
    ("line", r"\n|\\\\(?:\[[^\]\n]*\])?"),
    ("currency", r"\\?\$|[€£¢]"),
    ("percent", r"\\?%"),
    ("fraction", rf"\\[dtc]?frac{_COMMAND_END}"),
    ("binomial", rf"\\[dt]?binom{_COMMAND_END}"),
    ("root", rf"(?:\\|\b)sqrt{_COMMAND_END}"),
    ("box", rf"\\f?boxed{_COMMAND_END}"),
    ("divisor", rf"(?:\\|\b)(?:gcd|lcm)\s*(?:\\left)?\(\s*{NUMBER}(?:\s*,\s*{NUMBER})+\s*(?:\\right)?\)"),
    ("times", rf"\*(?!\*)|[×·]|\\(?:cdot|times){_COMMAND_END}|\b(?:times|multiplied by)\b|(?<=\d)[xX](?=\$?[\d.])"),
    ("over", rf"/(?!/)|÷|\\div{_COMMAND_END}|\bdivided by\b"),
    ("plus", r"\+|\bplus\b"),
    ("minus", r"[-−–]|\bminus\b"),
    ("power", r"\*\*|\^"),
    ("floor", r"//"),
    ("remainder", rf"\\bmod{_COMMAND_END}|\bmod(?:ulo)?\b"),
    ("about", rf"≈|\\approx{_COMMAND_END}"),
    ("break", r"!=|[.,;:?](?!\d)|[\"'“”‘’<>≤≥|…#—→⇒]|\\[()\[\]]|\\(?:begin|end)\s*\{[^{}]*\}"),
    ("words", r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{[^{}]*\}"),
    ("arrow", rf"\\(?:implies|Rightarrow|rightarrow|to|therefore){_COMMAND_END}"),
    ("equals", "="),
    ("says", r"\b(?:is|equals|gives|makes)\b"),
    ("part", r"\bof\b"),
    ("article", r"\b[aAI](?= [\d$€£])"),
    ("mark", r"[!(){}\[\]]"),
    ("letter", r"\b[a-zA-Z]\b|(?<=\d)[a-zA-Z]\b"),
    ("word", r"[^\W\d_]{2,}"),
    ("unreadable", r"\\[a-zA-Z]+|(?s:.)"),
)
_LEXEME = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _LEXEMES))
_SPELLED = {
    **{"percent": "%", "times": "*", "over": "/", "plus": "+", "minus": "-", "power": "^", "floor": "//"},
    **{"remainder": "mod", "about": "≈", "says": "is", "part": "*"},
    **{"fraction": "frac", "binomial": "binom", "root": "sqrt", "box": "boxed"},
}
_SORTS = {
    **{"number": Sort.NUMBER, "letter": Sort.LETTER, "unreadable": Sort.UNREADABLE},
    **{name: Sort.EQUALS for name in ("equals", "says", "about")},
    **{name: Sort.FUNCTION for name in ("fraction", "binomial", "root", "box", "divisor")},
    **{
        name: Sort.MARK for name in ("times", "over", "plus", "minus", "power", "floor", "remainder", "percent", "mark")
    },
    "part": Sort.MARK,
}
_AMOUNT = re.compile(rf"\s?{NUMBER}")


def runs(text: str) -> Iterator[list[Token]]:
    """The runs of `text` in order, none of them empty."""
    run: list[Token] = []
    line_ended = False  # which ends the run, unless an equals sign comes next
    for match in _LEXEME.finditer(text):
        name = match.lastgroup
        if name == "space":
            continue
        if name == "line":
            line_ended = True
            continue
        if name == "currency" and _opens_an_amount(run, text, match.end()):
            continue
        if name == "part" and not _is_a_share(run):
            name = "word"
        sort = _SORTS.get(name)
        if run and (sort is None or (line_ended and sort is not Sort.EQUALS)):
            yield run
            run = []
        line_ended = False
        if sort is not None:
            run.append(Token(sort, _SPELLED.get(name, match[0].lstrip("\\")), *match.span()))
    if run:
        yield run


def _opens_an_amount(run: list[Token], text: str, end: int) -> bool:
    """Does a currency sign that ends at `end` stand before a number that may go on with the run?"""
    may_go_on = not run or run[-1].sort is Sort.EQUALS or run[-1].text in ("+", "-", "*", "/", "(", "{", "x", "X")
    return may_go_on and _AMOUNT.match(text, end) is not None


def _is_a_share(run: list[Token]) -> bool:
    """Does the run end in a percentage or a fraction, of which something is taken?"""
    return bool(run) and (run[-1].text in ("%", "}") or (len(run) > 2 and run[-2].text == "/"))


def whole(text: str) -> list[Token]:
    """The tokens of a text that is one run and nothing else. Raises ValueError if there are other words in it."""
    names = {match.lastgroup for match in _LEXEME.finditer(text)}
    found = list(runs(text))
    if len(found) != 1 or not names <= {*_SORTS, "space"}:
        raise ValueError(f"{text!r} holds more than numbers and arithmetic")
    return found[0]
