"""Rewards of graded trajectories."""

from __future__ import annotations

import pytest

from retool.objectives.registry import lookup
from retool.objectives.rewards import add_rewards, outcome_reward, overlong, tool_bonus_reward
from retool.types import Author, CallStatus, Problem, Span, ToolCall, Trajectory

OK, MALFORMED = CallStatus.OK, CallStatus.MALFORMED


def trajectory(correct: bool = False, calls: list[tuple[int, CallStatus]] | None = None, tokens: int = 0) -> Trajectory:
    """`calls` are the spans that called and how it went; half of the tokens are the interpreter's."""
    authors = (Author.MODEL, Author.INTERPRETER)
    spans = [Span(author, list(range(tokens // 2)), "") for author in authors]
    made = [ToolCall(span, 0, "", "", status) for span, status in calls or []]
    problem = Problem("p", "?", "1", "s")
    return Trajectory("t", 1, "a", 0, 0, "g", "m", "tags", problem, [], spans, made, correct=correct)


def test_the_reward_is_plus_or_minus_one() -> None:
    assert outcome_reward(trajectory()) == {"total": -1.0}
    assert outcome_reward(trajectory(correct=True)) == {"total": 1.0}
    assert lookup("reward", "outcome", {"wrong": 0.0})(trajectory()) == {"total": 0.0}


@pytest.mark.parametrize(("turns", "total"), [(0, -1.0), (1, -0.9), (3, -0.7), (4, -0.6), (9, -0.6)])
def test_a_wrong_answer_costs_less_the_more_turns_called(turns: int, total: float) -> None:
    calls = [(2 * turn, OK) for turn in range(turns)]
    verl = min(-0.6, -1.0 + 0.1 * ((2 * turns + 2) - 2) / 2)  # num_turns = user and assistant turns + 1
    reward = tool_bonus_reward(trajectory(calls=calls))
    assert reward["total"] == pytest.approx(total) == pytest.approx(verl)
    assert reward["outcome"] + reward["tool_bonus"] == reward["total"]


def test_a_right_answer_is_worth_the_same_however_it_was_found() -> None:
    assert tool_bonus_reward(trajectory(correct=True, calls=[(0, OK)]))["total"] == 1.0


def test_calls_of_one_turn_count_once_and_malformed_ones_not_at_all() -> None:
    calls = [(0, OK), (0, CallStatus.ERROR), (2, MALFORMED)]
    assert tool_bonus_reward(trajectory(calls=calls))["total"] == pytest.approx(-0.9)


@pytest.mark.parametrize(("tokens", "penalty"), [(0, 0), (80, 0), (90, -0.5), (100, -1), (140, -1)])
def test_length_is_punished_softly_from_the_cache_on(tokens: int, penalty: float) -> None:
    found = overlong(trajectory(tokens=tokens), max_tokens=100, cache_tokens=20)
    assert found["total"] == found["overlong"] == pytest.approx(penalty)


@pytest.mark.parametrize("name", ["outcome", "tool_bonus"])
def test_the_parts_of_several_rewards_are_added_up(name: str) -> None:
    long = trajectory(correct=True, tokens=90)
    rewards = [lookup("reward", name), lookup("reward", "overlong", {"factor": 0.5}, max_tokens=100)]
    assert add_rewards(long, rewards) == {**rewards[0](long), "total": 0.75, "overlong": -0.25}
