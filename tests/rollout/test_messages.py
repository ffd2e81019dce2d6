"""The agent loop in messages, with a real HTTP server in the place of the model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from worlds import PROBLEM, FakeSandbox, prints

from chat_server import Answer, ChatServer, chat_server, completion, failure, in_turn
from retool.config.endpoint import EndpointConfig
from retool.config.sampling import SamplingConfig
from retool.config.schema import RolloutConfig
from retool.endpoint import Endpoint, Refused
from retool.grading import Grader
from retool.rollout.agent import Task
from retool.rollout.collect import collect
from retool.rollout.messages import MessageAgent
from retool.rollout.meter import Meter
from retool.types import Author, CallStatus, StopReason, Trajectory

TASK = Task(PROBLEM, None, "eval", 0, 0, 0, "m")


def asks(*codes: str, text: str | None = None, arguments: str | None = None, **reply: Any) -> web.Response:
    """A reply that calls the tool with each of `codes`."""
    written = [json.dumps({"code": code}) for code in codes] if arguments is None else [arguments]
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "python", "arguments": one}}
        for n, one in enumerate(written)
    ]
    return completion(text, tool_calls=calls, **({"finish": "tool_calls"} | reply))


def says(text: str, **reply: Any) -> web.Response:
    return completion(text, **reply)


def roll_out(
    answer: Answer, sandbox: FakeSandbox | None, calls: int | None = None, **limits: Any
) -> tuple[Trajectory, ChatServer]:
    async def main() -> tuple[Trajectory, ChatServer]:
        async with (
            chat_server(answer) as server,
            Endpoint(EndpointConfig(url=server.url, model="m", retries=0)) as endpoint,
        ):
            rollout = RolloutConfig.model_validate({"max_tokens": 600, "max_calls": 4} | limits)
            sampling = SamplingConfig(temperature=0.5, top_p=0.7)
            agent = MessageAgent(endpoint, sandbox, rollout, sampling, "Solve.", 400, Meter(), calls)
            with Grader() as grader:
                (trajectory,) = await collect(agent, [TASK], grader)
        return trajectory, server

    return asyncio.run(main())


def test_a_call_is_run_and_its_result_is_the_next_message() -> None:
    answer = in_turn(lambda: asks("print(12 * 7)", text="Let me see."), lambda: says("So \\boxed{84}."))
    trajectory, server = roll_out(answer, prints("84"))
    first, second = server.requests
    assert first["messages"] == [{"role": "user", "content": f"Solve.\n\n{PROBLEM.text}"}]
    assert (first["temperature"], first["top_p"]) == (0.5, 0.7)
    assert first["tools"][0]["function"]["name"] == "python"
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][1]["tool_calls"][0]["id"] == second["messages"][2]["tool_call_id"]
    assert second["messages"][2]["content"] == "84"
    assert [span.author for span in trajectory.spans] == [Author.MODEL, Author.INTERPRETER, Author.MODEL]
    assert (trajectory.stop, trajectory.answer, trajectory.correct) == (StopReason.EOS, "84", True)


def test_a_trajectory_of_messages_has_no_ids_and_says_so() -> None:
    trajectory, _ = roll_out(in_turn(lambda: asks("x"), lambda: says("\\boxed{84}")), prints(""))
    assert not trajectory.token_exact and trajectory.prompt_ids is None
    assert all(span.ids is None and span.logprobs is None for span in trajectory.spans)
    assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_an_answer_in_code_or_in_a_result_is_none() -> None:
    answer = in_turn(lambda: asks("print('\\\\boxed{84}')"), lambda: says("That was it."))
    trajectory, _ = roll_out(answer, prints("\\boxed{84}"))
    assert (trajectory.answer, trajectory.correct) == (None, False)
    assert "boxed" in trajectory.spans[0].text and "boxed" in trajectory.spans[1].text


def test_calls_of_one_reply_are_answered_one_by_one() -> None:
    trajectory, server = roll_out(in_turn(lambda: asks("a", "b"), lambda: says("\\boxed{84}")), prints("ok"))
    assert [call.code for call in trajectory.calls] == ["a", "b"]
    assert [m["tool_call_id"] for m in server.requests[1]["messages"] if m["role"] == "tool"] == ["c0", "c1"]
    text = trajectory.spans[0].text
    assert [text[call.start :].startswith("<tool_call>") for call in trajectory.calls] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{", "the arguments are not valid JSON"),
        ('{"code": 3}', "the argument 'code' must be a string"),
        ('{"code": " "}', "the argument 'code' is empty"),
        ("[]", "a call must look like"),
    ],
)
def test_a_malformed_call_is_answered_with_what_is_wrong(arguments: str, message: str) -> None:
    answer = in_turn(lambda: asks(arguments=arguments), lambda: says("\\boxed{84}"))
    trajectory, server = roll_out(answer, prints("never"))
    assert trajectory.calls[0].status is CallStatus.MALFORMED
    assert server.requests[1]["messages"][-1]["content"].startswith(f"Nothing was executed: {message}")


def test_one_call_too_many_ends_the_response() -> None:
    trajectory, server = roll_out(lambda _: asks("x"), prints("1"), max_calls=2)
    assert (trajectory.stop, len(trajectory.calls), len(server.requests)) == (StopReason.CALLS, 2, 3)


def test_after_so_many_calls_no_tool_is_offered() -> None:
    answer = in_turn(lambda: asks("x"), lambda: says("\\boxed{84}"))
    trajectory, server = roll_out(answer, prints("1"), calls=1)
    assert ["tools" in request for request in server.requests] == [True, False]
    assert trajectory.correct
    _, server = roll_out(lambda _: says("\\boxed{84}"), prints("1"), calls=0)
    assert "tools" not in server.requests[0]


def test_without_an_interpreter_no_tool_is_offered() -> None:
    trajectory, server = roll_out(lambda _: says("\\boxed{84}"), None)
    assert "tools" not in server.requests[0] and trajectory.correct


def test_what_was_written_is_charged_to_the_whole_response() -> None:
    answer = in_turn(lambda: asks("x", reply=70), lambda: says("\\boxed{84} and", reply=30, finish="length"))
    trajectory, server = roll_out(answer, prints("1"), max_tokens=100)
    assert [request["max_tokens"] for request in server.requests] == [100, 30]
    assert (trajectory.stop, trajectory.answer, trajectory.correct) == (StopReason.TOKENS, "84", False)


def test_a_call_that_was_cut_short_is_not_run() -> None:
    trajectory, _ = roll_out(lambda _: asks(arguments='{"code": "pri', finish="length"), prints("1"))
    assert (trajectory.stop, trajectory.calls) == (StopReason.TURN_TOKENS, [])


def test_of_a_long_result_head_and_tail_are_shown() -> None:
    answer = in_turn(lambda: asks("x"), lambda: says("\\boxed{84}"))
    _, server = roll_out(answer, prints("a" * 300 + "b" * 300))
    shown = server.requests[1]["messages"][-1]["content"]
    assert shown == "a" * 200 + "\n… 200 characters omitted …\n" + "b" * 200


def test_a_conversation_that_has_outgrown_the_context_was_cut_short() -> None:
    answer = in_turn(lambda: asks("x"), lambda: failure(400, "maximum context length is 8192 tokens"))
    trajectory, _ = roll_out(answer, prints("1"))
    assert (trajectory.stop, trajectory.correct) == (StopReason.TOKENS, False)


@pytest.mark.parametrize("answer", [lambda _: failure(400, "no such model"), lambda _: failure(401, "no such key")])
def test_a_request_that_is_wrong_from_the_start_ends_the_evaluation(answer: Answer) -> None:
    with pytest.raises(Refused, match="no such"):
        roll_out(answer, prints("1"))
