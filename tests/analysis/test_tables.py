"""Shares, uses, costs and pairs, from responses with behaviour planted in them."""

from __future__ import annotations

import pytest

from planted import ERROR, MALFORMED, failed, ran, respond
from retool.analysis import (
    Purpose,
    agreement,
    best_number_of_calls,
    breakdown,
    changes,
    cost,
    curves,
    head_to_head,
    observe,
    read_verdict,
    tool_health,
    usefulness,
    where,
)
from retool.types import CallStatus, StopReason, Trajectory

SUM, DRAW = ran("print(1 + 1)"), ran("import random\nprint(random.random())")
BROKEN, FIXED = failed("print(10 / zero)"), ran("zero = 2\nprint(10 / zero)")


def calls_of(*trajectories: Trajectory):
    return [call for trajectory in trajectories for call in observe(trajectory).calls]


def responses_of(*trajectories: Trajectory):
    return [observe(trajectory).response for trajectory in trajectories]


def only(rows, **wanted):
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def test_purposes_by_step_and_by_correctness() -> None:
    calls = calls_of(
        respond(SUM, SUM, problem="a"),
        respond(DRAW, problem="b", correct=False),
        respond(SUM, DRAW, DRAW, DRAW, problem="a", step=5),
    )
    rows = breakdown(calls, "purpose")
    row = only(rows, step=0, purpose="calculation")
    assert (row["calls"], row["share"], row["in_correct"], row["in_incorrect"]) == (2, 2 / 3, 1.0, 0.0)
    assert (row["accuracy"], only(rows, step=0, purpose="simulation")["accuracy"]) == (1.0, 0.0)
    assert row["low"] <= row["share"] <= row["high"]
    assert only(rows, step=5, purpose="simulation")["in_incorrect"] is None
    change = only(changes(rows, "purpose"), purpose="simulation")
    assert (change["before"], change["after"]) == (1 / 3, 0.75)
    assert change["difference"] == pytest.approx(0.75 - 1 / 3)


def test_a_purpose_that_comes_or_goes_changes_from_or_to_nothing() -> None:
    rows = breakdown(calls_of(respond(SUM), respond(DRAW, step=2)), "purpose")
    assert only(changes(rows, "purpose"), purpose="simulation")["before"] == 0.0
    assert only(changes(rows, "purpose"), purpose="calculation")["after"] == 0.0
    assert changes(breakdown(calls_of(respond(SUM)), "purpose"), "purpose") == []


def test_kinds_of_errors_are_shares_of_the_errors() -> None:
    calls = calls_of(respond(SUM, BROKEN, BROKEN, ("x", "TypeError: no", ERROR)))
    rows = breakdown(calls, "error_type")
    assert {row["error_type"]: row["share"] for row in rows} == {"NameError": 2 / 3, "TypeError": 1 / 3}


def test_health_of_the_calls() -> None:
    trajectories = [
        respond(SUM, SUM, BROKEN, ("", "Nothing was executed.", MALFORMED)),
        respond(("x = 1", "", CallStatus.TIME_LIMIT), ("x = 1", "", CallStatus.OVERLOAD), stop=StopReason.SANDBOX),
        respond("No call.", stop=StopReason.TOKENS),
    ]
    row = tool_health(responses_of(*trajectories), calls_of(*trajectories))
    assert (row["responses"], row["calls"], row["calls_per_response"], row["most_calls"]) == (3, 6, 2.0, 4)
    assert (row["ok"], row["failed"], row["malformed"], row["timed_out"]) == (2 / 6, 2 / 6, 1 / 6, 1 / 6)
    assert (row["lost"], row["repeated"]) == (1 / 6, 2 / 6)
    assert (row["responses_with_a_call"], row["truncated_responses"]) == (2 / 3, 1 / 3)
    assert tool_health(responses_of(respond("No.")), [])["ok"] is None


def test_self_correction_over_training() -> None:
    corrected = [respond(BROKEN, "zero is not defined.", FIXED, problem=str(index), step=3) for index in range(3)]
    silent = respond(BROKEN, FIXED, problem="3", step=3)
    stuck, calm = respond(BROKEN, problem="4", step=3), respond(SUM, problem="5", step=3)
    rows = curves({0: [calm], 3: [*corrected, silent, stuck, calm]}, "retool")
    values = {(row["step"], row["metric"]): row["value"] for row in rows}
    assert values[3, "self_correction.of_failed"] == 4 / 5
    assert values[3, "self_correction.diagnosed"] == 3 / 5
    assert values[3, "self_correction.of_all"] == 4 / 6
    assert values[0, "self_correction.of_failed"] is None
    assert values[0, "self_correction.of_all"] == 0.0


def test_accuracy_by_use() -> None:
    rows = usefulness(
        responses_of(
            respond("Guess.", problem="a", correct=False),
            respond("Guess.", problem="b", correct=False),
            respond(SUM, problem="a", sample=1),
            respond(SUM, problem="b", sample=1),
            respond(BROKEN, "zero is missing", FIXED, problem="a", sample=2),
            respond(BROKEN, SUM, problem="b", sample=2, correct=False),
        )
    )
    by_calls = {row["value"]: (row["responses"], row["accuracy"]) for row in rows if row["by"] == "calls"}
    assert by_calls == {"0": (2, 0.0), "1": (2, 1.0), "2": (2, 0.5)}
    by_failure = {row["value"]: row["accuracy"] for row in rows if row["by"] == "failures"}
    assert by_failure == {"nothing executed": 0.0, "no failure": 1.0, "corrected": 1.0, "not corrected": 0.0}
    assert only(rows, by="first_call", value="0-25 %")["responses"] == 4
    assert only(rows, by="calls", value="1")["within_problem"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    (best,) = best_number_of_calls(rows)
    assert (best["calls"], best["accuracy"], best["responses_with_more"], best["accuracy_with_more"]) == (
        "1",
        1,
        2,
        0.5,
    )


def test_what_right_answers_cost() -> None:
    right, wrong = respond("So:", SUM, "4"), respond("No.", correct=False)
    right.timing = {"tool_seconds": 2.0}
    (row,) = cost(responses_of(right, wrong))
    written, read = (
        len("\n".join(["So:", "<code>\n```python\nprint(1 + 1)\n```\n</code>"]) + "4"),
        len(right.spans[1].text),
    )
    assert row["call_tokens"] == len("<code>\n```python\nprint(1 + 1)\n```\n</code>") / 2
    assert row["result_tokens"] == read / 2
    assert row["tokens_per_correct"] == written + read + len("No.")
    assert (row["calls_per_correct"], row["tool_seconds_per_correct"]) == (1.0, 2.0)
    (nothing,) = cost(responses_of(wrong))
    assert nothing["tokens_per_correct"] is None


def test_who_wins_where() -> None:
    def arm(name: str, *outcomes: bool, parts=()) -> list:
        return responses_of(*[respond(*parts, problem=f"{name}{i}", text=f"Q{i}", correct=right, arm=name)
                              for i, right in enumerate(outcomes)])  # fmt: skip

    problems = head_to_head(arm("text", True, False, False, False), arm("code", False, True, True, parts=[SUM]))
    assert [row["difference"] for row in problems] == [1.0, 1.0, -1.0]
    assert {row["second_code_ratio"] for row in problems} == {1.0}
    row = only(where(problems), by="code", value="code")
    assert (row["first"], row["second"], row["problems"], row["better"], row["worse"]) == ("text", "code", 3, 2, 1)
    assert row["difference"] == pytest.approx(1 / 3)
    assert row["low"] < row["difference"] < row["high"]


def test_cohens_kappa_of_the_textbook_table() -> None:
    one, two = Purpose.SEARCH, Purpose.DATA
    pairs = [(one, one)] * 20 + [(one, two)] * 5 + [(two, one)] * 10 + [(two, two)] * 15 + [(one, None)]
    found = agreement(pairs)
    assert (found["calls"], found["unread"], found["agreed"]) == (51, 1, 0.7)
    assert found["kappa"] == pytest.approx(0.4)
    assert found["confusion"] == {"search": {"search": 20, "data": 5}, "data": {"search": 10, "data": 15}}


def test_agreement_that_says_nothing() -> None:
    assert agreement([])["kappa"] is agreement([])["agreed"] is None
    assert agreement([(Purpose.SEARCH, Purpose.SEARCH)])["kappa"] is None  # chance alone agrees always


@pytest.mark.parametrize(
    ("reply", "purpose"),
    [
        ("search", Purpose.SEARCH),
        ("**Verification**.", Purpose.VERIFICATION),
        ("Not a calculation, rather a simulation", Purpose.SIMULATION),
        ("I cannot say", None),
        ("", None),
    ],
)
def test_a_judges_reply(reply: str, purpose: Purpose | None) -> None:
    assert read_verdict(reply) is purpose
