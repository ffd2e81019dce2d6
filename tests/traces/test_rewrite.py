"""Worked solutions become drafts with code, drafts and real outputs become traces, and the rest is rejected by name."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.puzzles.families import FAMILIES
from retool.puzzles.generate import generate
from retool.traces import (
    Draft,
    Execution,
    Reason,
    Rejection,
    complete,
    model_spans,
    rewrite,
    text_trace,
    verify,
)
from retool.types import CallStatus, Kind, Problem, Segment, Trace

PENCILS = Problem("pencils", "Ada has 48 pencils and sells half. She gets $0.50 for each. How much?", "12", "shop")
PENCILS_SOLUTION = (
    "Ada sells 48/2 = <<48/2=24>>24 pencils.\nShe gets 24 x $0.50 = $<<24*0.50=12.00>>12.00 for them, all in cash."
)


def run(snippet: str) -> Execution:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    return Execution(CallStatus.OK, printed.getvalue().strip())


def finish(problem: Problem, solution: str) -> Trace | Rejection:
    draft = rewrite(problem, solution)
    return draft if isinstance(draft, Rejection) else complete(draft, [run(snippet) for snippet in draft.snippets])


def boxed(texts: list[str], reference: str) -> bool:
    return f"\\boxed{{{reference}}}" in texts[-1]


def reason(outcome: object) -> Reason:
    assert isinstance(outcome, Rejection)
    return outcome.reason


def test_each_marked_calculation_becomes_a_call_and_the_text_goes_on_with_its_value():
    trace = finish(PENCILS, PENCILS_SOLUTION)
    assert [(s.kind, s.text) for s in trace.segments] == [
        (Kind.TEXT, "Ada sells 48/2 ="),
        (Kind.CODE, "print(48 / 2)"),
        (Kind.RESULT, "24.0"),
        (Kind.TEXT, "24 pencils.\nShe gets 24 x $0.50 ="),
        (Kind.CODE, "print(24 * 0.5)"),
        (Kind.RESULT, "12.0"),
        (Kind.TEXT, "$12.00 for them, all in cash.\nThe answer is \\boxed{12}."),
    ]
    assert all(s.status is CallStatus.OK for s in trace.segments if s.kind is Kind.RESULT)
    assert verify(trace, boxed) is trace


def test_the_text_twin_is_the_solution_without_marks():
    twin = text_trace(PENCILS, PENCILS_SOLUTION)
    assert [s.text for s in twin.segments] == [
        "Ada sells 48/2 = 24 pencils.\nShe gets 24 x $0.50 = $12.00 for them, all in cash.\nThe answer is \\boxed{12}."
    ]
    assert verify(twin, boxed) is twin


def sentence(a: int, sign: str, b: int, marked: bool, end: str) -> str:
    value = a + b if sign == "+" else a - b
    mark = f"<<{a}{sign}{b}={value}>>" if marked else ""
    return f"So {a} {sign} {b} = ${mark}{value:,}{end}"


amounts = st.integers(0, 10**7)
sentences = st.builds(
    sentence,
    amounts,
    st.sampled_from("+-"),
    amounts,
    st.booleans(),
    st.sampled_from([".", " in all.\n", "; x = <<7=7>>7, "]),
)


@given(st.lists(sentences, min_size=1, max_size=6).map(" ".join))
def test_rewriting_puts_code_in_and_changes_no_word(solution):
    draft, twin = rewrite(PENCILS, solution), text_trace(PENCILS, solution)
    if isinstance(draft, Draft):
        words = "".join(segment.text for segment in draft.segments if segment.kind is Kind.TEXT)
        assert "".join(twin.segments[0].text.split()).startswith("".join(words.split()))
        trace = complete(draft, [run(snippet) for snippet in draft.snippets])
        assert trace.segments[-1].text.splitlines()[-1] == twin.segments[0].text.splitlines()[-1]


def test_a_result_at_the_very_end_is_followed_by_the_conclusion():
    trace = finish(PENCILS, "She gets 48/4 = <<48/4=12>>")
    assert trace.segments[-1] == Segment(Kind.TEXT, "The answer is \\boxed{12}.")


def test_a_mark_without_anything_to_calculate_stays_text():
    trace = finish(PENCILS, "So x=<<24=24>>24 and she gets 24/2 = $<<24/2=12>>12.")
    assert [s.text for s in trace.segments if s.kind is Kind.CODE] == ["print(24 / 2)"]
    assert trace.segments[0].text == "So x=24 and she gets 24/2 ="
    assert reason(rewrite(PENCILS, "x=<<12=12>>12")) is Reason.NO_RULE


def test_what_code_printed_is_never_seen_by_the_judge_of_the_answer():
    trace = finish(PENCILS, PENCILS_SOLUTION)
    assert [span.count("12.0") for span in model_spans(trace)] == [0, 0, 1]  # "$12.00", which the model writes itself
    assert "24.0" not in "".join(model_spans(trace))
    assert "print" not in "".join(model_spans(trace))


def test_steps_without_marks_are_found_where_they_are_written_out_and_right():
    trace = finish(PENCILS, "Half of 48 is 48 / 2 = 24.\nShe gets 24 x $.50 = $12 for them.")
    assert [(s.kind, s.text) for s in trace.segments if s.kind is not Kind.RESULT] == [
        (Kind.TEXT, "Half of 48 is 48 / 2 ="),
        (Kind.CODE, "print(48 / 2)"),
        (Kind.TEXT, "24.\nShe gets 24 x $.50 ="),
        (Kind.CODE, "print(24 * 0.5)"),
        (Kind.TEXT, "$12 for them.\nThe answer is \\boxed{12}."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "2x + 3 + 4 = 20",
        "12 x 1 and 1/4 = 15",
        "3 + 4 = 7 * 1",
        "80% * 80% = 64%",
        "2 * 1 + 1 1/2 = 3 1/2",
        "18:00-10:00 = 8",
        "A4 + 2 + 3 = 5",
        "at 10:30 - 2 = 28",
        "1/2x = 3, so x = 6",
        "$3\\frac{1}{2} + 1 = 4\\frac{1}{2}$",
        "the rest - 3 - 4 = -7",
        "x^2 = 36 and x = 6",
        "4*x = 24 and x = 7",
        "area \\pi \\cdot 3 + 4 = 7",
        "5 - 2 = 4",
    ],
)
def test_what_only_looks_like_a_step_is_left_alone(text):
    assert reason(rewrite(PENCILS, f"{text}. The answer is 12.")) is Reason.NO_RULE


def test_nothing_is_worked_out_after_the_answer():
    trace = finish(PENCILS, "It is 24 / 2 = \\boxed{12}, which is right, as 12 / 4 = 3.")
    assert [s.text for s in trace.segments if s.kind is Kind.CODE] == ["print(24 / 2)"]
    assert trace.segments[-1].text == "\\boxed{12}, which is right, as 12 / 4 = 3."


def test_a_solution_that_has_its_own_box_keeps_it():
    trace = finish(PENCILS, "It is $24 / 2 = 12$, so \\boxed{12}.")
    assert trace.segments[-1] == Segment(Kind.TEXT, "12$, so \\boxed{12}.")
    assert verify(trace, boxed) is trace


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_puzzles_has_a_rule_and_its_code_finds_the_answer(family):
    for problem, solution in generate(len(FAMILIES) * 20, seed=5):
        if problem.source != family:
            continue
        trace = verify(finish(problem, solution), boxed)
        assert isinstance(trace, Trace), trace
        plan, code, result, conclusion = trace.segments
        assert solution.startswith(plan.text) and plan.text.endswith(".")
        assert result.text == problem.answer
        assert conclusion.text == f"So the answer is \\boxed{{{problem.answer}}}."
        assert len(code.text) < 200
        assert verify(text_trace(problem, solution), boxed).segments[0].text == solution


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("", Reason.NO_SOLUTION),
        (None, Reason.NO_SOLUTION),
        ("Halving both sides, we get x = 12.", Reason.NO_RULE),
        ("48/4 = <<48/4=a dozen>>12", Reason.UNREADABLE_CALCULATION),
        ("48/4 = <<48/4=12>>12, then <<12", Reason.UNREADABLE_CALCULATION),
        ("48/4 = <<48/4=12>>13", Reason.OUTPUT_DIFFERS),
        ("48/4 = <<48/4=13>>13", Reason.OUTPUT_DIFFERS),
        ("We need 7 * 9 mod 50. Who knows.", Reason.NO_RULE),
        ("Nobody knows.", Reason.NO_ANSWER),
        ("We need 7 * 9 mod 50. 63. So the answer is \\boxed{12}.", Reason.OUTPUT_DIFFERS),
    ],
)
def test_solutions_that_are_rejected(solution, expected):
    assert reason(finish(PENCILS, solution)) is expected


def test_a_calculation_that_is_not_the_answer_is_rejected():
    trace = finish(PENCILS, "Ada sells 48/2 = <<48/2=24>>24 pencils, which makes 12 dollars.")
    assert reason(verify(trace, boxed)) is Reason.WRONG_ANSWER


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(CallStatus.ERROR, "ZeroDivisionError: division by zero"), Reason.CODE_FAILED),
        (Execution(CallStatus.TIME_LIMIT, "too slow"), Reason.CODE_FAILED),
        (Execution(CallStatus.OVERLOAD, ""), Reason.SANDBOX_FAILED),
        (Execution(CallStatus.OK, "\n"), Reason.EMPTY_OUTPUT),
        (Execution(CallStatus.OK, "25"), Reason.OUTPUT_DIFFERS),
    ],
)
def test_runs_that_lose_the_trace(execution, expected):
    draft = rewrite(PENCILS, PENCILS_SOLUTION)
    assert reason(complete(draft, [execution, Execution(CallStatus.OK, "12")])) is expected


@pytest.mark.parametrize(
    ("solution", "boxed_value"),
    [
        ("48/4 = 12, so 3 for each. The answer is: 3.", "3"),
        ("48/4 = 12, so 3 for each.\n#### 1,200", "1200"),
        ("48/4 = 12, so 3 for each.", "12"),
        ("Ada has 3 and Bo has 14 of them.", "14"),
        ("The answer is $7/2$, that is 3.5.", "7/2"),
        ("So 1/4 + 1/4 = 1/2", "1/2"),
        ("It is 48/4 = 12, or \\boxed{a dozen}.", "a dozen"),
        ("It is 2, not 48/4 = 12: \\fbox{2}", "2"),
        ("That makes \\boxed 5, and not 6.", "5"),
        ("The answer is 3 + 4 = 7", "7"),
        ("The answer is not 5, it is 2 + 4 = 6.", "6"),
        ("Ada has 7 and Bo has 5. The answer is Ada.", "Ada"),
        ("5 of 7 are left, so the answer is (B).", "(B)"),
        ("1 + 2 = 3, so the answer is $\\frac{x}{3} + 1$.", "\\frac{x}{3} + 1"),
        ("The answer is $5 and he pays $6 less, not $1.5x", "5"),
        ("( 8.0 - 3.0 )", "5"),
        ("X=(7.0+2.5)", "9.5"),
        ("28.0+x=54.0", "26"),
        ("( 10.0 / 3.0 )", "10/3"),
    ],
)
def test_the_box_is_for_what_the_solution_says_is_the_answer(solution, boxed_value):
    assert boxed([text_trace(PENCILS, solution).segments[0].text], boxed_value)


@pytest.mark.parametrize(
    ("solution", "concluded"),
    [
        ("It is 4. The answer is $4.25 each.", "It is 4. The answer is $\\boxed{4.25} each."),
        ("It is 4.\n#### 1,200", "It is 4.\nThe answer is \\boxed{1200}"),
        ("So the answer is $\\frac{3}{4}$.", "So the answer is $\\boxed{\\frac{3}{4}}$."),
    ],
)
def test_an_answer_that_is_stated_is_boxed_where_it_stands(solution, concluded):
    assert text_trace(PENCILS, solution).segments[0].text == concluded


def test_an_expression_or_an_equation_that_is_all_of_a_solution_is_worked_out():
    assert rewrite(PENCILS, "( 8.0 - 3.0 )").segments == (
        Segment(Kind.TEXT, "( 8.0 - 3.0 ) ="),
        Segment(Kind.CODE, "print(8.0 - 3.0)"),
        Segment(Kind.TEXT, "5\nThe answer is \\boxed{5}."),
    )
    assert "solve(Eq(28 + x, 54), x)" in rewrite(PENCILS, "28 + x = 54").snippets[0]


@pytest.mark.parametrize("solution", ["x + y = 7", "x^2 = 9", "x = x + 1", "1 / 0", "7", "2 * 3 * x", "a dozen"])
def test_what_has_no_single_value_is_not_worked_out(solution):
    draft = rewrite(PENCILS, solution)
    assert reason(draft) in (Reason.NO_RULE, Reason.NO_ANSWER)


TEXT = Segment(Kind.TEXT, "It is \\boxed{12}.")
CODE = Segment(Kind.CODE, "print(12)")
RESULT = Segment(Kind.RESULT, "12", CallStatus.OK)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ((), Reason.FORMAT),
        ((Segment(Kind.TEXT, "It is 12."),), Reason.FORMAT),
        ((TEXT, CODE, RESULT), Reason.FORMAT),
        ((TEXT, CODE, RESULT, Segment(Kind.TEXT, "That is all.")), Reason.FORMAT),
        ((CODE, TEXT), Reason.FORMAT),
        ((RESULT, TEXT), Reason.FORMAT),
        ((CODE, Segment(Kind.RESULT, "", CallStatus.OK), TEXT), Reason.FORMAT),
        ((Segment(Kind.TEXT, "<code>1</code> \\boxed{12}"),), Reason.FORMAT),
        ((Segment(Kind.TEXT, "```python \\boxed{12}"),), Reason.FORMAT),
        ((Segment(Kind.TEXT, "x" * 60_000 + "\\boxed{12}"),), Reason.TOO_LONG),
        ((Segment(Kind.TEXT, "It is \\boxed{13}."),), Reason.WRONG_ANSWER),
    ],
)
def test_traces_that_do_not_verify(segments, expected):
    assert reason(verify(Trace(PENCILS, segments), boxed)) is expected


def test_a_sound_trace_verifies_and_survives_json():
    trace = Trace(PENCILS, (CODE, RESULT, TEXT))
    assert verify(trace, boxed) is trace
    assert Trace.from_json(trace.to_json()) == trace
