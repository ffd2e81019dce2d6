"""Solutions with calls in the paper's tags become drafts, and the real outputs decide what becomes of them."""

import pytest

from retool.traces import Draft, Execution, Reason, Rejection, complete, read_tagged, rewrite
from retool.types import CallStatus, Kind, Problem, Trace

PROBLEM = Problem("p", "What is 17 * 23?", "391", "test")
OK, ERROR = CallStatus.OK, CallStatus.ERROR


def tagged(*parts: str, end: str = "So \\boxed{391}.") -> str:
    """Snippets and outputs in turn, with the end after them."""
    calls = [f"<code>\n```python\n{code}\n```\n</code>\n<interpreter>\n{output}\n</interpreter>\n"
             for code, output in zip(parts[::2], parts[1::2], strict=True)]  # fmt: skip
    return "Let me see.\n" + "Then:\n".join(calls) + end


def finish(solution: str, *executions: Execution) -> Trace | Rejection:
    draft = read_tagged(PROBLEM, solution)
    assert isinstance(draft, Draft), draft
    return complete(draft, executions)


def test_a_solution_with_calls_is_cut_into_segments_without_tags_and_fences():
    draft = rewrite(PROBLEM, tagged("print(17 * 23)", "391", end="<answer>\n\\boxed{391}\n</answer>"))
    assert [(s.kind, s.text) for s in draft.segments] == [
        (Kind.TEXT, "Let me see."),
        (Kind.CODE, "print(17 * 23)"),
        (Kind.TEXT, "\\boxed{391}"),
    ]
    assert draft.claims == ("391",) and draft.imagined
    assert Draft.from_json(draft.to_json()) == draft


def test_indentation_and_calls_in_a_row_survive():
    draft = read_tagged(PROBLEM, "<code>\n  if 1:\n    2\n</code><code>print(1)</code>\n<interpreter>1</interpreter>x")
    assert draft.snippets == ["  if 1:\n    2", "print(1)"]
    assert draft.claims == (None, "1")


@pytest.mark.parametrize(
    "solution",
    [
        "<code>print(1)",
        "<code>print(1)<interpreter>1</interpreter>",
        "<code>1</code></code>",
        "x</code><code>1</code>",
        "<code>1</code> so <interpreter>1</interpreter>",
        "<code>1</code><interpreter>1</interpreter><interpreter>2</interpreter>",
        "<interpreter>1</interpreter><code>1</code>",
    ],
)
def test_tags_that_do_not_fit_are_a_fault_of_form(solution):
    rejected = read_tagged(PROBLEM, solution)
    assert isinstance(rejected, Rejection) and rejected.reason is Reason.FORMAT


def test_the_real_output_takes_the_place_of_the_imagined_one():
    trace = finish(tagged("print(17 * 23)", "It is 391"), Execution(OK, "391"))
    assert [s.text for s in trace.segments if s.kind is Kind.RESULT] == ["391"]


def test_a_text_that_relies_on_a_wrong_output_is_rejected():
    rejected = finish(tagged("print(17 * 23)", "381", end="So 381, \\boxed{391}."), Execution(OK, "391"))
    assert rejected.reason is Reason.OUTPUT_DIFFERS and "goes on with 381" in rejected.detail


def test_a_failure_that_is_corrected_stays_and_one_that_is_not_does_not():
    solution = tagged("print(x)", "NameError: name 'x' is not defined", "print(391)", "391")
    failure = Execution(ERROR, "Traceback (most recent call last):\nNameError: name 'x' is not defined")
    trace = finish(solution, failure, Execution(OK, "391"))
    assert [s.status for s in trace.segments if s.kind is Kind.RESULT] == [ERROR, OK]
    assert finish(solution, failure, failure).reason is Reason.CODE_FAILED
    right_first = tagged("print(391)", "391", "print(x)", "391")
    assert finish(right_first, Execution(OK, "391"), failure).reason is Reason.CODE_FAILED


def test_what_prints_nothing_teaches_nothing():
    assert finish(tagged("17 * 23", "391"), Execution(OK, "")).reason is Reason.EMPTY_OUTPUT


def test_what_the_sandbox_lost_is_nobodys_fault():
    lost = Execution(CallStatus.OVERLOAD, "")
    assert finish(tagged("print(1)", "1"), lost).reason is Reason.SANDBOX_FAILED
