"""A chat endpoint against a real HTTP server that is slow, busy, wrong or rude."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chat_server import chat_server, completion, failure, in_turn
from retool.config.endpoint import EndpointConfig
from retool.config.load import load_config
from retool.endpoint import Endpoint, Refused, ToolRequest
from retool.errors import RetoolError, UsageError

ASK = [{"role": "user", "content": "What is 6 * 7?"}]


def talk(answer: Any, use: Any, cache: Path | None = None, **settings: Any) -> Any:
    """`use(endpoint, server)` against a server that answers so."""

    async def main() -> Any:
        async with chat_server(answer) as server:
            config = EndpointConfig(url=server.url, model="m", **settings)
            async with Endpoint(config, cache) as endpoint:
                return await use(endpoint, server)

    return asyncio.run(main())


def test_a_question_is_answered() -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        reply = await endpoint.chat(ASK, key=3, temperature=0.0, stop=["\n"])
        assert (reply.text, reply.finish, reply.cached) == ("42", "stop", False)
        assert (reply.prompt_tokens, reply.completion_tokens) == (10, 5)
        assert reply.message == {"role": "assistant", "content": "42"}
        assert server.requests == [
            {
                "model": "m",
                "messages": ASK,
                "temperature": 0.0,
                "top_p": 0.9,
                "max_tokens": 8192,
                "seed": 3,
                "stop": ["\n"],
            }
        ]

    talk(lambda body: completion("42"), use, top_p=0.9)


def test_tool_calls_come_back_as_the_model_wrote_them_and_as_a_message_to_answer() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "python", "arguments": '{"code": "6*7"}'}},
        {"function": {"name": "python", "arguments": {"code": "1"}}},
    ]
    tools = [{"type": "function", "function": {"name": "python", "parameters": {"type": "object"}}}]

    async def use(endpoint: Endpoint, server: Any) -> None:
        reply = await endpoint.chat(ASK, tools)
        assert reply.finish == "tool_calls" and reply.text == ""
        assert reply.tool_calls == (
            ToolRequest("a", "python", '{"code": "6*7"}'),
            ToolRequest("call_1", "python", '{"code": "1"}'),
        )
        assert reply.message["tool_calls"][0] == calls[0]
        assert server.requests[0]["tools"] == tools

    talk(lambda body: completion(None, "tool_calls", tool_calls=calls), use)


def test_the_key_of_the_environment_is_sent_and_none_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(endpoint: Endpoint, server: Any) -> str | None:
        await endpoint.chat(ASK)
        return server.headers[0].get("Authorization")

    monkeypatch.setenv("TEACHER", "s3cret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert talk(lambda body: completion("42"), use, api_key_env="TEACHER") == "Bearer s3cret"
    assert talk(lambda body: completion("42"), use) is None


def test_the_same_request_is_asked_once_and_each_repeat_by_itself(tmp_path: Path) -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        first = await endpoint.chat(ASK)
        again = await endpoint.chat(ASK)
        assert again.cached and not first.cached and again.text == first.text == "seed 0"
        assert (await endpoint.chat(ASK, key=1)).text == "seed 1"
        assert not (await endpoint.chat(ASK, temperature=0.5)).cached
        assert (endpoint.usage.requests, endpoint.usage.cached) == (3, 1)
        assert len(server.requests) == len(list(tmp_path.glob("*.json"))) == 3

    talk(lambda body: completion(f"seed {body['seed']}"), use, cache=tmp_path)


def test_a_spoilt_file_of_the_cache_is_named(tmp_path: Path) -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        await endpoint.chat(ASK)
        next(tmp_path.glob("*.json")).write_text("{")
        with pytest.raises(UsageError, match=r"\.json is no reply .* delete it"):
            await endpoint.chat(ASK)

    talk(lambda body: completion("42"), use, cache=tmp_path)


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: failure(429, Retry_After="0.01"),
        lambda: failure(503, Retry_After="0"),
        lambda: failure(500, Retry_After=format_datetime(datetime.now(UTC) - timedelta(seconds=9))),
        lambda: failure(408, Retry_After="0"),
    ],
)
def test_what_fails_for_a_moment_is_tried_again(trouble: Any) -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        assert (await endpoint.chat(ASK)).text == "42"
        assert (endpoint.usage.requests, endpoint.usage.retried) == (1, 2)

    talk(in_turn(trouble, trouble, lambda: completion("42")), use)


@pytest.mark.parametrize(
    "garbage",
    [
        lambda: web.Response(text="<html>busy</html>"),
        lambda: web.json_response({"error": {"message": "upstream is down", "code": 502}}),
        lambda: web.json_response({"choices": [{"message": {"content": ["not", "text"]}}]}),
        lambda: web.json_response({"choices": [{"message": {"tool_calls": [{"id": "a"}]}}]}),
        lambda: web.json_response([]),
    ],
)
def test_garbage_is_no_answer(garbage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retool.endpoint.client.random.uniform", lambda low, high: 0.01)

    async def use(endpoint: Endpoint, server: Any) -> None:
        assert (await endpoint.chat(ASK)).text == "42"

    talk(in_turn(garbage, lambda: completion("42")), use)
    with pytest.raises(RetoolError, match=r"failed 2 times, the last time with what came back is no chat completion"):
        talk(lambda body: garbage(), use, retries=1)


def test_a_server_that_hangs_or_is_gone_is_given_up_after_the_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retool.endpoint.client.random.uniform", lambda low, high: 0.01)

    async def slow(body: Any) -> web.Response:
        await asyncio.sleep(30)

    async def use(endpoint: Endpoint, server: Any) -> None:
        await endpoint.chat(ASK)

    with pytest.raises(RetoolError, match=r"failed 2 times, the last time with no answer within 0.05 s"):
        talk(slow, use, timeout=0.05, retries=1)

    async def nobody() -> None:
        async with Endpoint(EndpointConfig(url="http://127.0.0.1:9/v1", model="m", retries=1)) as endpoint:
            await endpoint.chat(ASK)

    with pytest.raises(RetoolError, match=r"127.0.0.1:9/v1/chat/completions failed 2 times") as error:
        asyncio.run(nobody())
    assert error.value.exit_code == 1


def test_retry_after_holds_for_everybody() -> None:
    times: list[float] = []

    def answer(body: Any) -> web.Response:
        times.append(time.monotonic())
        return failure(429, Retry_After="0.3") if len(times) == 1 else completion("42")

    async def use(endpoint: Endpoint, server: Any) -> None:
        first = asyncio.create_task(endpoint.chat(ASK))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, endpoint.chat(ASK, key=1))

    talk(answer, use)
    assert len(times) == 3 and times[1] - times[0] > 0.28


def test_a_server_that_wants_to_be_left_alone_for_long_is() -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        await endpoint.chat(ASK)

    with pytest.raises(RetoolError, match="asks to come back in 3600 s"):
        talk(lambda body: failure(429, Retry_After="3600"), use, timeout=30.0)


@pytest.mark.parametrize(("status", "code"), [(400, None), (401, None), (404, None), (429, "insufficient_quota")])
def test_a_request_that_is_wrong_is_not_repeated_and_says_what_the_server_said(status: int, code: str | None) -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        with pytest.raises(Refused, match=rf"answered {status}.*: that is wrong"):
            await endpoint.chat(ASK)
        assert len(server.requests) == 1 and endpoint.usage.retried == 0

    talk(lambda body: failure(status, "that is wrong", code), use)


def test_a_field_that_a_server_does_not_take_is_left_out_or_renamed() -> None:
    def fussy(body: dict[str, Any]) -> web.Response:
        if "seed" in body:
            return failure(400, "Unrecognized request argument supplied: seed")
        if "max_tokens" in body:
            return failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return completion("42")

    async def use(endpoint: Endpoint, server: Any) -> None:
        replies = await asyncio.gather(*(endpoint.chat(ASK, key=n) for n in range(3)))
        assert [reply.text for reply in replies] == ["42"] * 3
        asked = len(server.requests)
        await endpoint.chat(ASK, key=9)
        assert len(server.requests) == asked + 1
        assert server.requests[-1]["max_completion_tokens"] == 8192 and "seed" not in server.requests[-1]

    talk(fussy, use)


def test_no_more_requests_are_under_way_than_the_config_allows() -> None:
    async def slow(body: Any) -> web.Response:
        await asyncio.sleep(0.02)
        return completion("42")

    async def use(endpoint: Endpoint, server: Any) -> int:
        await asyncio.gather(*(endpoint.chat(ASK, key=n) for n in range(12)))
        return server.most_at_once

    assert talk(slow, use, concurrency=3) == 3


def test_the_limit_of_cost_ends_it_and_what_was_paid_for_is_kept(tmp_path: Path) -> None:
    prices = {"price_in": 1.0, "price_out": 2.0, "max_cost": 3e-5}  # a reply costs 10 * 1e-6 + 5 * 2e-6

    async def use(endpoint: Endpoint, server: Any) -> None:
        for key in range(2):
            await endpoint.chat(ASK, key=key)
        assert endpoint.usage.cost == pytest.approx(4e-5)
        with pytest.raises(RetoolError, match=rf"max_cost=3e-05; what it has answered is kept in {tmp_path}"):
            await endpoint.chat(ASK, key=2)
        assert (await endpoint.chat(ASK, key=1)).cached

    talk(lambda body: completion("42"), use, cache=tmp_path, **prices)


def test_a_limit_of_cost_needs_prices_and_counts() -> None:
    with pytest.raises(UsageError, match=r"max_cost=1\.0 needs price_in and price_out"):
        load_config(EndpointConfig, None, ["url=http://127.0.0.1", "model=m", "max_cost=1.0"])
    with pytest.raises(UsageError, match=r"begins with http:// or https://, found '127\.0\.0\.1'"):
        load_config(EndpointConfig, None, ["url=127.0.0.1", "model=m"])

    async def use(endpoint: Endpoint, server: Any) -> None:
        await endpoint.chat(ASK)

    def uncounted(body: Any) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "42"}}]})

    with pytest.raises(RetoolError, match="does not say how many tokens"):
        talk(uncounted, use, price_in=1.0, max_cost=1.0)
    talk(uncounted, use)


def test_half_a_surrogate_pair_passes_through(tmp_path: Path) -> None:
    async def use(endpoint: Endpoint, server: Any) -> None:
        for _ in range(2):
            reply = await endpoint.chat([{"role": "user", "content": "\ud800"}])
            assert reply.text == "\ud800"

    def echo(body: Any) -> web.Response:
        return web.Response(body=json.dumps({"choices": [{"message": {"content": "\ud800"}}]}).encode())

    talk(echo, use, cache=tmp_path)


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    async def use() -> None:
        async with Endpoint(EndpointConfig(url="http://127.0.0.1", model="m")):
            pass

    with pytest.raises(UsageError, match=r"needs the library aiohttp: pip install 'retool\[endpoint\]'"):
        asyncio.run(use())
