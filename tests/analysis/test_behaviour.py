"""The six behaviour metrics, on trajectories with planted behaviour."""

import pytest

from retool.analysis import behaviour, code_lines, curves
from retool.errors import UsageError
from retool.types import Author, CallStatus, Problem, Span, ToolCall, Trajectory

OK, ERROR, MALFORMED = CallStatus.OK, CallStatus.ERROR, CallStatus.MALFORMED


def response(*calls: tuple[CallStatus, str], before: int = 10, result: int = 5, after: int = 5, correct: bool = True):
    """`before` tokens of reasoning, then each call with its result, then `after` tokens. A call has 10 tokens."""
    spans, made, start = [], [], before
    for i, (status, code) in enumerate(calls):
        written = (before if i == 0 else 0) + 10
        made.append(ToolCall(span=len(spans), start=start, code=code, output="1", status=status))
        spans.append(Span(Author.MODEL, [0] * written, "…"))
        spans.append(Span(Author.INTERPRETER, [1] * result, "1"))
        start += 10 + result
    spans.append(Span(Author.MODEL, [0] * (after if calls else before + after), "…"))
    return Trajectory(
        id="t",
        step=0,
        arm="retool",
        seed=0,
        sample=0,
        group="g",
        model="m",
        protocol="tags",
        problem=Problem("p", "?", "1", "sums"),
        prompt_ids=[],
        spans=spans,
        calls=made,
        correct=correct,
    )


def test_response_length_tells_the_models_tokens_from_all_tokens():
    measured = behaviour([response((OK, "1")), response()])["response_length"]
    assert measured == {"model": (25 + 15) / 2, "total": (30 + 15) / 2}


def test_code_ratio_counts_responses_whose_code_was_executed():
    responses = [response((OK, "1"), (OK, "2")), response((ERROR, "1")), response((MALFORMED, "")), response()]
    assert behaviour(responses)["code_ratio"] == 0.5


def test_code_lines_are_summed_over_calls_and_averaged_over_all_responses():
    responses = [response((OK, "a = 1\n\n# why\nprint(a)"), (OK, "print(2)  # two")), response()]
    assert behaviour(responses)["code_lines"] == 1.5


def test_correct_code_count_is_a_total():
    responses = [response((OK, "1"), (ERROR, "2"), (OK, "3")), response((OK, "4"))]
    assert behaviour(responses)["correct_code_count"] == 3


def test_code_pass_rate_looks_at_the_last_call_apart_for_right_and_wrong_responses():
    responses = [
        response((ERROR, "1"), (OK, "2")),
        response((OK, "1")),
        response((OK, "1"), (ERROR, "2"), correct=False),
        response((OK, "1"), (MALFORMED, ""), correct=False),
        response((OK, "1"), correct=False),
        response((OK, "1"), correct=False),
        response(correct=False),
    ]
    assert behaviour(responses)["code_pass_rate"] == {"correct": 1.0, "incorrect": 0.5}


def test_invocation_timing_is_the_place_of_the_first_call_in_the_whole_response():
    early, late = response((OK, "1"), (OK, "2"), before=0), response((OK, "1"), before=15)
    assert behaviour([early])["invocation_timing"] == 0
    assert behaviour([late])["invocation_timing"] == 15 / 35
    assert behaviour([early, late, response()])["invocation_timing"] == pytest.approx(15 / 70)


def test_without_calls_rates_and_timing_are_undefined():
    measured = behaviour([response(), response(correct=False)])
    assert measured["code_pass_rate"] == {"correct": None, "incorrect": None}
    assert measured["invocation_timing"] is None
    assert measured["code_ratio"] == measured["code_lines"] == measured["correct_code_count"] == 0


def test_lengths_of_text_without_ids_are_undefined_and_the_rest_is_not():
    foreign = response((OK, "1"))
    for span in foreign.spans:
        span.ids, span.text = None, "." * 20
    measured = behaviour([foreign, response((OK, "1"))])
    assert measured["response_length"] == {"model": None, "total": None}
    assert measured["invocation_timing"] == (10 / 60 + 10 / 30) / 2  # in characters, and in tokens
    assert measured["code_ratio"] == 1


def test_curves_are_tidy_rows_in_order_of_step():
    rows = curves({20: [response((OK, "1"))], 0: [response()]}, arm="ReTool")
    assert [row["step"] for row in rows] == [0] * 12 + [20] * 12
    assert {row["arm"] for row in rows} == {"ReTool"}
    assert [row["metric"] for row in rows[:12]] == [
        "accuracy",
        "response_length.model",
        "response_length.total",
        "code_ratio",
        "code_lines",
        "correct_code_count",
        "code_pass_rate.correct",
        "code_pass_rate.incorrect",
        "invocation_timing",
        "self_correction.of_failed",
        "self_correction.diagnosed",
        "self_correction.of_all",
    ]
    point = {"arm": "ReTool", "step": 20, "metric": "invocation_timing"}
    assert {**point, "value": 10 / 30, "low": 10 / 30, "high": 10 / 30} in rows


def test_curves_have_intervals_over_problems():
    responses = [response((OK, "1")) if index % 2 else response() for index in range(100)]
    for index, each in enumerate(responses):
        each.problem = Problem(str(index), "?", "1", "sums")
    rows = {row["metric"]: row for row in curves({0: responses}, "a")}
    half = 1.96 * (0.5 * 0.5 / 100) ** 0.5
    assert rows["code_ratio"]["low"] == pytest.approx(0.5 - half, abs=0.02)
    assert rows["code_ratio"]["high"] == pytest.approx(0.5 + half, abs=0.02)
    count = rows["correct_code_count"]
    assert (count["value"], count["low"], count["high"]) == (
        50,
        100 * rows["code_ratio"]["low"],
        100 * rows["code_ratio"]["high"],
    )


@pytest.mark.parametrize(
    ("code", "lines"),
    [("", 0), ("\n \n", 0), ("x = 1", 1), ("# only\n  # comments", 0), ("if x:\r\n\r\n    y()\r\n", 2)],
)
def test_blank_lines_and_comments_are_not_code(code, lines):
    assert code_lines(code) == lines


def test_nothing_to_analyse_is_an_error():
    with pytest.raises(UsageError, match="no trajectories"):
        behaviour([])
