"""Why a row did not become a trace."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The values are the keys of the report's counts."""

    # sources
    INCOMPLETE = "incomplete"
    DUPLICATE = "duplicate"
    CONFLICTING_ANSWERS = "conflicting_answers"
    CONTAMINATED = "contaminated"
    # the filter of sources
    NO_SOLUTION = "no_solution"
    NO_ANSWER = "no_answer"
    WRONG_ANSWER = "wrong_answer"
    JUDGED_UNSOUND = "judged_unsound"
    UNREADABLE_VERDICT = "unreadable_verdict"
    REJECTED_IN_REVIEW = "rejected_in_review"
    # rewriting
    NO_RULE = "no_rule"
    UNREADABLE_CALCULATION = "unreadable_calculation"
    NO_CALL = "no_call"
    REPLY_CUT_SHORT = "reply_cut_short"
    REFUSED = "refused"
    NEVER_SOLVED = "never_solved"
    TOO_EASY = "too_easy"
    TOO_HARD = "too_hard"
    # execution
    CODE_FAILED = "code_failed"
    EMPTY_OUTPUT = "empty_output"
    OUTPUT_DIFFERS = "output_differs"
    SANDBOX_FAILED = "sandbox_failed"
    # format, answer and balance
    FORMAT = "format"
    TOO_LONG = "too_long"
    TOO_MANY_CALLS = "too_many_calls"
    OVER_QUOTA = "over_quota"

    @property
    def meaning(self) -> str:
        """One line for readers of a report."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.INCOMPLETE: "the row has no problem or no reference answer",
    Reason.DUPLICATE: "another row has the same problem",
    Reason.CONFLICTING_ANSWERS: "rows with the same problem have different answers",
    Reason.CONTAMINATED: "the problem is one of an evaluation set, or shares a long run of words with one",
    Reason.NO_SOLUTION: "the row has no worked solution",
    Reason.NO_ANSWER: "the solution states no final value that could be boxed",
    Reason.WRONG_ANSWER: "the final answer is not the reference answer",
    Reason.JUDGED_UNSOUND: "the judge found the problem or its solution unsound",
    Reason.UNREADABLE_VERDICT: "the judge gave no verdict",
    Reason.REJECTED_IN_REVIEW: "a person rejected it",
    Reason.NO_RULE: "no rule found a calculation to turn into code",
    Reason.UNREADABLE_CALCULATION: "a marked calculation is not plain arithmetic with a number as its value",
    Reason.NO_CALL: "the rewritten solution calls no code",
    Reason.REPLY_CUT_SHORT: "the reply reached the limit of tokens",
    Reason.REFUSED: "the endpoint refused the request",
    Reason.NEVER_SOLVED: "none of the model's responses is a verified success",
    Reason.TOO_EASY: "the model solves the problem more often than wanted",
    Reason.TOO_HARD: "the model solves the problem less often than wanted",
    Reason.CODE_FAILED: "a snippet did not run to its end, and none after it did",
    Reason.EMPTY_OUTPUT: "a snippet printed nothing",
    Reason.OUTPUT_DIFFERS: "a snippet printed another value than the one the text goes on with",
    Reason.SANDBOX_FAILED: "the sandbox could not run a snippet, for reasons of its own",
    Reason.FORMAT: "the trace is not well formed",
    Reason.TOO_LONG: "the trace is too long",
    Reason.TOO_MANY_CALLS: "the trace has more calls than wanted",
    Reason.OVER_QUOTA: "there are enough traces with as many calls",
}
