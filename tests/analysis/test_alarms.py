"""A run that collapses says so once, with the numbers; one that is well says nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.analysis import alarms

WELL = {
    "tool_call_rate": 0.6,
    "boxed_rate": 0.9,
    "entropy": 0.4,
    "truncated_rate": 0.1,
    "accuracy": 0.5,
    "kl_sampler_learner": 1e-4,
    "logprob_gap_max": 0.1,
    "dropped_updates": 0.0,
    "trained": 64,
    "grad_norm": 0.3,
}


def run(metric: str, *values: Any) -> list[dict[str, Any]]:
    return [WELL | {metric: value} for value in values]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [alarm.name for alarm in alarms(rows)]


def test_a_run_that_is_well_has_none() -> None:
    assert names([]) == names([WELL]) == names([WELL] * 50) == []


@pytest.mark.parametrize(
    ("name", "rows", "numbers"),
    [
        (
            "tool_calls",
            run("tool_call_rate", *[0.2] * 3, *[0.8] * 3, *[0.1] * 3),
            "10% over the last 3 steps, once 80%",
        ),
        ("boxed", run("boxed_rate", *[0.9] * 3, *[0.1] * 3), "10% over the last 3 steps, once 90%"),
        ("entropy", run("entropy", *[0.5] * 3, *[0.04] * 3), "0.0400 nats .*, 0.5000 at the start"),
        ("entropy", run("entropy", *[0.05] * 3, *[0.009] * 3), "0.0090 nats .*, 0.0500 at the start"),
        ("truncation", run("truncated_rate", *[0.1] * 3, *[0.7] * 3), "70% over the last 3 steps, 10% at the start"),
        ("mismatch", run("kl_sampler_learner", 0.2), "mean KL of 0.200 nats a token is above 0.05"),
        ("mismatch", run("logprob_gap_max", 12.5), "one token is 12.5 nats apart, more than 10"),
        ("nan", run("dropped_updates", 0.0, 0.5), "50% of the updates"),
        ("no_gradient", run("grad_norm", 0.0, 0.0, 0.0), "3 steps in a row: the rewards of each group are equal"),
        ("no_gradient", [{"trained": 0, "accuracy": 0.0}] * 3, "with 0% of the responses right"),
    ],
)
def test_each_way_to_collapse_has_its_alarm(name: str, rows: list[dict[str, Any]], numbers: str) -> None:
    (alarm,) = alarms(rows)
    assert alarm.name == name
    assert re.search(numbers, alarm.message), alarm.message
    assert any(setting in alarm.advice for setting in ("rl.", "rollout.", "model.", "data."))


@pytest.mark.parametrize(
    "rows",
    [
        run("tool_call_rate", *[0.1] * 3, *[0.0] * 3),  # never had the habit
        run("tool_call_rate", *[0.8] * 3, *[0.3] * 3),  # fewer, and not a quarter
        run("tool_call_rate", *[0.8] * 5, 0.0),  # one step says nothing
        run("entropy", *[0.005] * 6),  # low from the start on
        run("entropy", *[0.4] * 3, *[0.05] * 3),
        run("truncated_rate", *[0.1] * 3, *[0.5] * 3),
        run("grad_norm", 0.0, 0.0, 0.1),
        [row | {"trained": 0} for row in run("grad_norm", 0.0, 0.0)],
    ],
)
def test_less_than_that_is_none(rows: list[dict[str, Any]]) -> None:
    assert names(rows) == []


def test_an_alarm_ends_when_the_run_recovers() -> None:
    rows = run("boxed_rate", *[0.9] * 3, *[0.1] * 3)
    assert names(rows) == ["boxed"]
    assert names(rows + [WELL] * 2) == []


def test_the_advice_without_a_gradient_depends_on_what_is_missing() -> None:
    for accuracy, problems in ((0.0, "easier"), (1.0, "harder")):
        (alarm,) = alarms([{"trained": 0, "accuracy": accuracy}] * 3)
        assert f"take {problems} problems" in alarm.advice


@given(st.lists(st.fixed_dictionaries({}, optional={n: st.floats() for n in WELL}), max_size=12))
def test_no_numbers_break_it(rows: list[dict[str, Any]]) -> None:
    assert all(alarm.message and alarm.advice for alarm in alarms(rows))
