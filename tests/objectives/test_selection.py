"""What is trained on, and the reasons for the rest."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from retool.objectives.selection import (
    Selection,
    equal_rewards,
    pass_rate,
    resample_on_correct,
    tool_penalty,
    truncated,
    void_turns,
)
from retool.types import Author, CallStatus, Problem, Span, StopReason, ToolCall, Trajectory

OK, ERROR, MALFORMED = CallStatus.OK, CallStatus.ERROR, CallStatus.MALFORMED
MODEL, INTERPRETER = Author.MODEL, Author.INTERPRETER
RNG = np.random.default_rng(0)  # drawn from by `resample_on_correct` alone


def trajectory(
    group: str = "g",
    correct: bool = False,
    calls: dict[int, CallStatus] | None = None,
    stop: StopReason = StopReason.EOS,
    answer: str | None = "1",
    spans: tuple[Author, ...] = (MODEL,),
) -> Trajectory:
    """`calls`: the span that called, and how it went."""
    made = [ToolCall(span, 0, "", "", status) for span, status in (calls or {}).items()]
    problem, written = Problem("p", "?", "1", "s"), [Span(author, [1], "") for author in spans]
    reward = {"total": 1.0 if correct else -1.0}
    return Trajectory("t", 1, "a", 0, 0, group, "m", "tags", problem, [], written, made, stop, answer, correct, reward)


def test_groups_in_which_all_fare_alike_are_dropped() -> None:
    rows = [("all", True), ("mixed", True), ("all", True), ("none", False), ("mixed", False), ("one", True)]
    selection = equal_rewards([trajectory(group, correct) for group, correct in rows], RNG)
    assert selection == Selection([1, 4], dict.fromkeys((0, 2, 3, 5), "equal rewards"))


def test_what_a_limit_cut_off_is_dropped_and_says_which() -> None:
    stops = [StopReason.EOS, StopReason.TOKENS, StopReason.SANDBOX, StopReason.CALLS]
    selection = truncated([trajectory(stop=stop) for stop in stops], RNG)
    assert selection == Selection([0, 2], {1: "cut off: tokens", 3: "cut off: calls"})


THREE = (MODEL, INTERPRETER, MODEL)


@pytest.mark.parametrize(
    ("case", "void"),
    [
        (trajectory(), False),
        (trajectory(answer=None), True),
        (trajectory(spans=THREE, calls={0: OK}), False),
        (trajectory(spans=THREE, calls={0: MALFORMED}), False),
        (trajectory(spans=THREE, calls={0: OK}, answer=None), True),
        (trajectory(spans=THREE, calls={}), True),
        (trajectory(spans=THREE, calls={0: OK}, answer=None, stop=StopReason.TOKENS), True),
        (trajectory(spans=THREE, calls={0: OK}, answer=None, stop=StopReason.CALLS), False),
        (trajectory(spans=THREE, calls={0: OK, 2: OK}, answer=None, stop=StopReason.TOKENS), False),
        (trajectory(spans=(MODEL, MODEL, INTERPRETER, MODEL), calls={1: OK}), False),
        (trajectory(spans=()), False),
    ],
)
def test_a_turn_is_void_without_a_call_and_without_an_answer(case: Trajectory, void: bool) -> None:
    assert void_turns([case], RNG) == Selection([] if void else [0], {0: "void turn"} if void else {})


def test_groups_outside_the_band_of_pass_rates_are_dropped() -> None:
    rights = {"never": 0, "low": 1, "middle": 5, "high": 9, "always": 10}
    trajectories = [trajectory(group, correct=n < right) for n in range(10) for group, right in rights.items()]
    dropped = pass_rate(trajectories, RNG, low=0.1, high=0.9).dropped
    assert {(trajectories[i].group, reason) for i, reason in dropped.items()} == {
        ("never", "too hard"),
        ("always", "too easy"),
    }
    assert len(dropped) == 20


@pytest.mark.parametrize(
    ("calls", "penalty"),
    [
        ({}, 0.5),
        ({0: OK}, 0.0),
        ({0: OK, 2: ERROR}, 0.5),
        ({0: CallStatus.TIME_LIMIT}, 1.0),
        ({0: OK, 2: MALFORMED}, 0.5),
        ({0: MALFORMED}, 1.5),
    ],
)
def test_the_penalty_is_the_share_of_failed_calls_and_that_of_malformed_ones(calls: dict, penalty: float) -> None:
    assert tool_penalty(trajectory(calls=calls)) == penalty


def oversampled(right: int, wrong: int, group: str = "g") -> list[Trajectory]:
    return [trajectory(group, correct=i < right) for i in range(right + wrong)]


@pytest.mark.parametrize(
    ("right", "wrong", "kept_right"), [(16, 16, 8), (4, 28, 2), (1, 31, 1), (31, 1, 15), (0, 32, 0), (32, 0, 16)]
)
def test_resampling_keeps_the_size_and_the_proportion_and_some_of_both(right: int, wrong: int, kept_right: int) -> None:
    trajectories = oversampled(right, wrong) + oversampled(2, 3, group="small")
    selection = resample_on_correct(trajectories, np.random.default_rng(0), size=16)
    of_group = [i for i in selection.kept if i < 32]
    assert len(of_group) == 16 and sum(i < right for i in of_group) == kept_right
    assert [i for i in selection.kept if i >= 32] == list(range(32, 37))
    assert sorted([*selection.kept, *selection.dropped]) == list(range(37))
    assert set(selection.dropped.values()) == {"resampled"}


def test_the_same_generator_resamples_the_same() -> None:
    kept = [resample_on_correct(oversampled(20, 12), np.random.default_rng(seed), size=16).kept for seed in (3, 3, 4)]
    assert kept[0] == kept[1] != kept[2]


def test_clean_successes_are_preferred_and_failures_are_not_judged() -> None:
    """Of four, with penalties 0, ½, 1 and 1½ among the right and the same among the wrong."""
    faults = [{0: OK}, {}, {0: ERROR}, {0: MALFORMED}]
    trajectories = [trajectory(correct=correct, calls=calls) for correct in (True, False) for calls in faults]
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(2000):
        counts.update(resample_on_correct(trajectories, rng, size=2).kept)
    weights = [1 / (penalty + 0.05) for penalty in (0, 0.5, 1, 1.5)]
    expected = [2000 * weight / sum(weights) for weight in weights] + [500.0] * 4
    assert [counts[i] for i in range(8)] == pytest.approx(expected, abs=70)
