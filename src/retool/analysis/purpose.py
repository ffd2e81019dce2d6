"""What a snippet is for (ReTool, section 3.3, figure 5), by rules that anyone can follow.

The paper asks a language model for the primary purpose of each snippet in its context. These rules look at the syntax
tree of the code and at the words around it; the first that applies decides:

1. `verification`: the text before announces a check (*verify*, *confirm*, *double-check*, *check the answer* …); or it
   says *check*, *again*, *another way* and the code prints a number that the text or an earlier result already has; or
   the code asserts, or prints whether two things are equal, outside its functions.
2. `simulation`: random draws, or names or words that say *simulate*, *Monte Carlo*.
3. `symbolic`: SymPy's symbols, equations or algebra (`solve`, `simplify`, `diff` …).
4. `numerical`: root finding, optimisation, integration or linear systems by approximation, of a library or by a loop
   that ends at a tolerance; or words that say *numerically*, *Newton's method*, *bisection*.
5. `search`: goes through candidates (a range, `itertools`, a `while` loop) and selects some by a condition, counts
   those that meet one, or takes the first, the largest, the smallest.
6. `plotting`: draws a picture.
7. `data`: works on tables, texts, dates or lists of measurements.
8. `calculation`: computes anything else.
9. `other`: computes nothing, or there is nothing to run.

Code that is not Python is judged by its lines before the error.
"""

from __future__ import annotations

import re
from enum import StrEnum

from retool.analysis.features import features
from retool.analysis.prose import prose
from retool.types import CallStatus, ToolCall, Trajectory


class Purpose(StrEnum):
    """What a call is for."""

    CALCULATION = "calculation"  # evaluates a formula or runs through fixed steps
    VERIFICATION = "verification"  # checks a result that is there already
    SEARCH = "search"  # enumerates candidates and keeps those that meet a condition
    SYMBOLIC = "symbolic"  # does algebra or calculus with symbols
    NUMERICAL = "numerical"  # approximates: roots, optima, integrals, linear systems
    SIMULATION = "simulation"  # draws at random, or plays a process through
    PLOTTING = "plotting"  # draws a picture
    DATA = "data"  # works on tables, texts, dates, lists of measurements
    OTHER = "other"  # computes nothing, or there is nothing to run


_NEAR = 240  # characters before a call in which an announcement counts
_ANNOUNCED = re.compile(
    r"\b(?:(?:verif(?:y|ies|ied|ying|ication)|confirm(?:s|ed|ing|ation)?|validat(?:e|es|ed|ing|ion)|double[- ]?check\w*"
    r"|cross[- ]?check\w*|sanity[- ]check\w*)(?! (?:each|every|all|which)\b)"
    r"|(?:make|making|be) sure(?! to\b)|(?:plug|substitut)\w*\b[^.\n]{0,40}\bback\b"
    r"|check(?:ing)? (?:this|that|the|my|our|these|those)\b[^.\n]{0,30}?"
    r"\b(?:answers?|results?|calculations?|computations?|solutions?|work|claims?|arithmetic)"
    r"|check (?:this|it)|(?:this|that|it|answer|result) is (?:really |indeed )?(?:right|correct)"
    r"|is (?:this|that|it) (?:really |indeed )?(?:right|correct))\b",
    re.IGNORECASE,
)
_HINTED = re.compile(r"\b(?:check\w*|again|another way|alternatively|recomput\w*|recalculat\w*)\b", re.IGNORECASE)
_SIMULATED = re.compile(r"\b(?:simulat\w*|monte[- ]carlo)\b", re.IGNORECASE)
_APPROXIMATED = re.compile(r"\b(?:numerical(?:ly)?|newton(?:['’]s method|[- ]raphson)|bisect\w*)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w])")


def purposes(trajectory: Trajectory) -> list[Purpose]:
    """The purpose of each call of a trajectory, in order."""
    if not trajectory.calls:
        return []
    found, earlier = [], ""
    for call, before in zip(trajectory.calls, prose(trajectory), strict=False):  # the last piece follows all calls
        earlier += f"{before}\n"
        found.append(classify(call, before, earlier))
        earlier += f"{call.output}\n"
    return found


def classify(call: ToolCall, before: str = "", earlier: str = "") -> Purpose:
    """The purpose of one call: `before` is the model's text since the last call, `earlier` all that it wrote and read
    up to here."""
    if not call.code.strip():
        return Purpose.OTHER
    code, near = features(call.code), _last_words(before)
    if code.tests_equality or _ANNOUNCED.search(near) or (_HINTED.search(near) and _repeats(call, earlier)):
        return Purpose.VERIFICATION
    rules = (
        (Purpose.SIMULATION, code.draws_at_random or code.names_simulation or bool(_SIMULATED.search(near))),
        (Purpose.SYMBOLIC, code.algebra),
        (Purpose.NUMERICAL, code.approximates or bool(_APPROXIMATED.search(near))),
        (Purpose.SEARCH, code.selects_candidates),
        (Purpose.PLOTTING, code.plots),
        (Purpose.DATA, code.handles_data),
        (Purpose.CALCULATION, code.computes),
    )
    return next((purpose for purpose, applies in rules if applies), Purpose.OTHER)


def _last_words(before: str) -> str:
    """What announces a call: the end of the last paragraph before it."""
    return before[-_NEAR:].rstrip().rpartition("\n\n")[2]


def _repeats(call: ToolCall, earlier: str) -> bool:
    """Does the call print a number that was known, and that its code does not hold?"""
    if call.status is not CallStatus.OK:
        return False
    return bool(_numbers(call.output) & (_numbers(earlier) - _numbers(call.code)))


def _numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in _NUMBER.findall(text)}
