"""A small chat server on this machine that behaves, and misbehaves, as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[dict[str, Any]], Any]


def completion(
    text: str | None, finish: str = "stop", prompt: int = 10, reply: int = 5, **message: Any
) -> web.Response:
    return web.json_response(
        {
            "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": reply},
        }
    )


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> web.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": {"message": message, "code": code}}, status=status, headers=headers)


@dataclass
class ChatServer:
    """`answer` gets the body of a request and gives a response, or a coroutine that does."""

    answer: Answer
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            response = self.answer(body)
            return response if isinstance(response, web.StreamResponse) else await response
        finally:
            self.at_once -= 1


def in_turn(*responses: Any) -> Answer:
    """One response after the other, the last one again and again."""
    left = list(responses)
    return lambda body: (left.pop(0) if len(left) > 1 else left[0])()


@asynccontextmanager
async def chat_server(answer: Answer) -> AsyncIterator[ChatServer]:
    server = ChatServer(answer)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", server._chat)
    async with TestServer(app, host="127.0.0.1") as running:
        server.url = str(running.make_url("/v1"))
        yield server
