"""Self-correction: code fails, the model says why, changes it, and it runs (the "aha" of ReTool, section 3.3).

The rule. A call *fails* if its code ended with an error, an exit, a signal or at a limit; a malformed call, which ran
nothing, and one that the sandbox lost do not count. A later call is *made from* a failed one if the two are similar
(`similarity` of at least 0.5, or of 0.4 if the text between them is a diagnosis) and not the same program; the very
next call also if the diagnosis announces a repair, or, where the code took too much time, memory or depth, if it
announces less work and the two have more in common than digits. A failed call that is made from an earlier failed one,
or repeats it, is a further attempt at the same code. The first call with status `ok` that is made from one of the
attempts corrects it. The same program again is never a correction: where it succeeds the second time, there was nothing
to correct.

A text is a *diagnosis* if it refers to the error (`retool.analysis.diagnosis`): by the exception's name, a name that
the message quotes, two words of the message, words for what such an error is about, or for errors and their repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retool.analysis.diagnosis import announces_less_work, announces_repair, refers_to
from retool.analysis.failures import FAILED, last_line
from retool.analysis.prose import prose
from retool.analysis.similarity import are_related, similarity
from retool.analysis.syntax import same_program
from retool.types import CallStatus, ToolCall, Trajectory

SIMILAR = 0.5
SIMILAR_WITH_DIAGNOSIS = 0.4


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
    if not diagnosed or alike >= SIMILAR_WITH_DIAGNOSIS:
        return diagnosed
    if index > attempts[-1] + 1:
        return False
    last, words = calls[attempts[-1]], pieces[index]
    return announces_repair(words) or (announces_less_work(words, last) and are_related(last.code, calls[index].code))


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
    return text, any(refers_to(text, calls[index]) for index in attempts)
