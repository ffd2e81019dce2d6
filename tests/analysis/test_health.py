"""The state of a step at a glance, from its rollouts."""

from __future__ import annotations

from typing import Any

from retool.analysis import health
from retool.types import Author, CallStatus, Problem, Span, StopReason, ToolCall, Trajectory

OK, ERROR, MALFORMED = CallStatus.OK, CallStatus.ERROR, CallStatus.MALFORMED


def trajectory(*statuses: CallStatus, tokens: int = 10, **settings: Any) -> Trajectory:
    """Turns of the model of `tokens` in all, each call answered by two tokens."""
    spans, calls = [Span(Author.MODEL, [1] * tokens, "")], []
    for status in statuses:
        calls.append(ToolCall(0, 0, "1", "", status))
        spans.append(Span(Author.INTERPRETER, [2, 2], ""))
    problem = Problem("p", "?", "4", "test")
    settings = {"reward": {"total": -1.0}, "spans": spans, "calls": calls} | settings
    return Trajectory("t", 1, "a", 0, 0, "g", "m", "tags", problem, [9], **settings)


def test_rates_are_of_responses_and_those_of_calls_of_calls() -> None:
    row = health(
        [
            trajectory(ERROR, OK, correct=True, answer="4", reward={"total": 1.0}),
            trajectory(MALFORMED),
            trajectory(OK, ERROR, stop=StopReason.TOKENS),
            trajectory(stop=StopReason.SANDBOX),
        ]
    )
    assert (row["reward"], row["accuracy"], row["boxed_rate"]) == (-0.5, 0.25, 0.25)
    assert (row["tool_call_rate"], row["calls_per_response"]) == (0.5, 1.25)
    assert (row["ok_call_rate"], row["malformed_call_rate"]) == (0.4, 0.2)
    assert (row["truncated_rate"], row["lost_rate"]) == (0.25, 0.25)
    assert row["code_pass_rate"] == 0.5  # of the two with code, the one whose last call is ok


def test_a_pass_rate_of_no_code_is_none() -> None:
    assert "code_pass_rate" not in health([trajectory(MALFORMED)])


def test_rewards_are_shown_by_part() -> None:
    row = health(
        [
            trajectory(reward={"total": 0.5, "outcome": 1.0, "overlong": -0.5}),
            trajectory(reward={"total": -1.0, "outcome": -1.0}),
        ]
    )
    assert (row["reward"], row["reward.outcome"], row["reward.overlong"]) == (-0.25, 0.0, -0.25)
    assert "reward.total" not in row


def test_lengths_are_by_author() -> None:
    row = health([trajectory(tokens=1), trajectory(OK, tokens=2), trajectory(OK, OK, tokens=9)])
    assert (row["model_tokens"], row["model_tokens_p50"], row["model_tokens_max"]) == (4.0, 2, 9)
    assert (row["interpreter_tokens"], row["interpreter_tokens_p50"], row["interpreter_tokens_max"]) == (2.0, 2, 4)


def test_a_step_without_rollouts_has_a_state_too() -> None:
    assert health([])["reward"] == 0.0 and health([])["model_tokens_max"] == 0
