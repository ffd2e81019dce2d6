"""Self-correction: code fails, the model says why, changes it, and it runs (the "aha" of ReTool, section 3.3).

The rule. A call *fails* if its code ended with an error, an exit, a signal or at a limit; a malformed call, which ran
nothing, and one that the sandbox lost do not count. A later call is *made from* a failed one if the two are similar
(`similarity` of at least 0.5, or of 0.4 if the text between them is a diagnosis) and not the same program; the very
next call also if the diagnosis announces a repair. A failed call that is made from an earlier failed one, or repeats
it, is a further attempt at the same code. The first call with status `ok` that is made from one of the attempts
corrects it. The same program again is never a correction: where it succeeds the second time, there was nothing to
correct.

A text is a *diagnosis* if it refers to the error: by the exception's name, a name that the message quotes, two words
of the message, or words for errors and their repair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from retool.analysis.prose import prose
from retool.analysis.similarity import similarity
from retool.analysis.syntax import same_program
from retool.types import CallStatus, ToolCall, Trajectory

SIMILAR = 0.5
SIMILAR_WITH_DIAGNOSIS = 0.4

FAILED = frozenset(
    {
        CallStatus.ERROR,
        CallStatus.EXIT,
        CallStatus.SIGNAL,
        CallStatus.TIME_LIMIT,
        CallStatus.MEMORY_LIMIT,
        CallStatus.OUTPUT_LIMIT,
    }
)
"""How a call ends whose code is to blame."""

_REPAIR = re.compile(
    r"\b(?:errors?|exceptions?|traceback|bugs?|buggy|mistakes?|mistaken\w*|typos?|oops|whoops|fix(?:e[sd]|ing)?"
    r"|fail(?:s|ed|ing|ure)?|crash\w*|undefined|miss(?:ed|ing)|mis(?:spelled|spelt|typed)|forg[eo]t\w*|incorrect\w*"
    r"|wrong\w*|invalid|syntax|indent\w*|correct(?:ed|ing|ion)|convert\w*|debug\w*|should have|try again"
    r"|not (?:been |properly )?(?:defined|imported|found)"
    r"|(?:does|did|is|was)(?: not|n['’]t) (?:work|exist|run|defined|allowed|supported)"
    r"|needs? to (?:be |first )?(?:defin|import|convert|cast|chang|add|handl)\w*)\b",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(
    r"\b(?:fix(?:e[sd]|ing)?|repair\w*|rewrit\w*|debug\w*|try again"
    r"|correct(?:ed|ing)? (?:it|this|that|(?:the|my) (?:code|script|function|program|error|mistake|bug|typo)))\b",
    re.IGNORECASE,
)
_LIMITS = {
    CallStatus.TIME_LIMIT: re.compile(
        r"\b(?:slow\w*|fast\w*|(?:in)?efficien\w*|time|time[sd]?[ -]?out|too long|optimi[sz]\w*)\b", re.IGNORECASE
    ),
    CallStatus.MEMORY_LIMIT: re.compile(r"\b(?:memory|too (?:large|big|much|many))\b", re.IGNORECASE),
    CallStatus.OUTPUT_LIMIT: re.compile(r"\b(?:output|print(?:s|ed|ing)?|too (?:long|much|many))\b", re.IGNORECASE),
}
_EXCEPTION = re.compile(r"(?:\w+\.)*(?P<name>[A-Z]\w{3,})\s*(?::|\Z)")
_QUOTED = re.compile(r"['\"`](\w{2,})['\"`]")
_LONG_WORD = re.compile(r"[a-z]{4,}")
_STEM = 4  # letters in which a word of the message and one of the text must agree
_EMPTY_WORDS = {"from", "have", "indeed", "must", "than", "that", "then", "this", "when", "will", "with"}


@dataclass(frozen=True, slots=True)
class SelfCorrection:
    """`failed` and `fixed` are indices into `Trajectory.calls`: the first attempt and the one that ran. `error` is the
    last line of the failed call's output, `diagnosis` the model's text between the two calls (it may be empty), and
    `diagnosed` says whether that refers to the error. `attempts` counts the calls that failed."""

    failed: int
    fixed: int
    error: str
    diagnosis: str
    diagnosed: bool
    attempts: int = 1


def self_corrections(trajectory: Trajectory) -> list[SelfCorrection]:
    """The self-corrections of a trajectory, in the order in which they succeed (see the top of this file)."""
    calls = trajectory.calls
    if not any(call.status in FAILED for call in calls):
        return []
    pieces = prose(trajectory)
    found: list[SelfCorrection] = []
    unsolved: list[list[int]] = []  # failed calls, those that are attempts at the same code together
    for index, call in enumerate(calls):
        if call.status in FAILED:
            _add_attempt(unsolved, index, calls, pieces)
        elif call.status is CallStatus.OK:
            for attempts in list(unsolved):
                if any(same_program(calls[i].code, call.code) for i in attempts):
                    unsolved.remove(attempts)  # it succeeds as it is: nothing was corrected
                elif _is_made_from(attempts, index, calls, pieces):
                    unsolved.remove(attempts)
                    found.append(_correction(attempts, index, calls, pieces))
    return found


def last_line(output: str) -> str:
    """The last line of an output that is not blank: of a traceback, the error."""
    return output.rstrip().rpartition("\n")[2].strip()


def error_type(call: ToolCall) -> str | None:
    """What failed: the name of the exception, or the verdict where there is none; None if nothing did."""
    if call.status not in FAILED:
        return None
    named = _EXCEPTION.match(last_line(call.output))
    return named["name"] if call.status is CallStatus.ERROR and named else call.status.value


def _add_attempt(unsolved: list[list[int]], index: int, calls: Sequence[ToolCall], pieces: Sequence[str]) -> None:
    """A failure is a further attempt at the newest code that it repeats or is made from, else the first at its own."""
    for attempts in reversed(unsolved):
        repeated = same_program(calls[attempts[-1]].code, calls[index].code)
        if repeated or _is_made_from(attempts, index, calls, pieces):
            attempts.append(index)
            return
    unsolved.append([index])


def _is_made_from(attempts: Sequence[int], index: int, calls: Sequence[ToolCall], pieces: Sequence[str]) -> bool:
    alike = max(similarity(calls[i].code, calls[index].code) for i in attempts)
    if alike >= SIMILAR:
        return True
    _, diagnosed = _diagnosis(attempts, index, calls, pieces)
    is_announced = index == attempts[-1] + 1 and _ANNOUNCED.search(pieces[index]) is not None
    return diagnosed and (alike >= SIMILAR_WITH_DIAGNOSIS or is_announced)


def _correction(
    attempts: Sequence[int], fixed: int, calls: Sequence[ToolCall], pieces: Sequence[str]
) -> SelfCorrection:
    text, diagnosed = _diagnosis(attempts, fixed, calls, pieces)
    return SelfCorrection(attempts[0], fixed, last_line(calls[attempts[0]].output), text, diagnosed, len(attempts))


def _diagnosis(
    attempts: Sequence[int], fixed: int, calls: Sequence[ToolCall], pieces: Sequence[str]
) -> tuple[str, bool]:
    """The model's text from the first attempt to call `fixed`, and whether it refers to an error of the attempts."""
    text = "\n".join(piece for piece in pieces[attempts[0] + 1 : fixed + 1] if piece)
    return text, any(_refers(text, calls[index]) for index in attempts)


def _refers(text: str, call: ToolCall) -> bool:
    if _REPAIR.search(text) or (call.status in _LIMITS and _LIMITS[call.status].search(text)):
        return True
    error, lower = last_line(call.output), text.lower()
    named = _EXCEPTION.match(error)
    if named and named["name"].lower() in lower.replace(" ", ""):
        return True
    if any(re.search(rf"\b{re.escape(name)}\b", text) for name in _QUOTED.findall(error)):
        return True
    message = set(_LONG_WORD.findall(error.partition(":")[2].lower())) - _EMPTY_WORDS
    words = set(_LONG_WORD.findall(lower)) - _EMPTY_WORDS
    met = [word for word in message if any(other.startswith(word[:_STEM]) for other in words)]
    return len(met) >= 2
