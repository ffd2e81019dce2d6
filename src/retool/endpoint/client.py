"""The client: one POST a reply, with everything around it that makes a night of them dependable."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

from retool.config.endpoint import EndpointConfig
from retool.endpoint.cache import ReplyCache
from retool.endpoint.rates import Rates
from retool.endpoint.reply import Reply, read_reply
from retool.endpoint.usage import Usage
from retool.errors import RetoolError, UsageError

_ROUTE = "/chat/completions"
_FOR_A_MOMENT = frozenset({408, 409, 425, 429})  # and all of 5xx: worth another attempt
_LONGEST_BACKOFF = 60.0  # seconds
_CHARACTERS_PER_TOKEN = 4  # a rough count of a prompt, until the server says better


class Refused(UsageError):
    """The server will not answer this request, now or later; others it may. `status` is that of HTTP."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class _Failed(Exception):
    """An attempt failed, and another may not. `wait`: the seconds that the server asked for, if it did."""

    def __init__(self, why: str, wait: float | None = None):
        super().__init__(why)
        self.wait = wait


class Endpoint:
    """A model behind an OpenAI-compatible server; an async context manager, for one event loop.

    Replies are kept in `config.cache`, or else in the folder `cache` (None: nowhere).
    """

    def __init__(self, config: EndpointConfig, cache: Path | None = None):
        self.config = config
        self.usage = Usage()
        folder = Path(config.cache) if config.cache else cache
        self._cache = ReplyCache(folder) if folder else None
        self._url = config.url.rstrip("/").removesuffix(_ROUTE) + _ROUTE
        self._refused_fields: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            from aiohttp import ClientSession, ClientTimeout, TCPConnector
        except ModuleNotFoundError as error:
            raise UsageError(f"an endpoint needs the library {error.name}: pip install 'retool[endpoint]'") from error
        key = os.environ.get(self.config.api_key_env)
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            timeout=ClientTimeout(total=self.config.timeout),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            trust_env=True,  # proxies
        )
        self._slots = asyncio.Semaphore(self.config.concurrency)
        self._rates = Rates(self.config.requests_per_minute, self.config.tokens_per_minute, time.monotonic)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        key: int = 0,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
    ) -> Reply:
        """The model's next message. What is None is the config's.

        `key` tells repeats of the same request apart: each has its own place in the cache, and a seed where the server
        takes one. Raises `Refused`, a UsageError with the server's words, for a request that is wrong and for a key or
        an address that is; RetoolError where the attempts are used up, or the limit of cost is reached.
        """
        config = self.config
        request: dict[str, Any] = {
            "model": config.model,
            "messages": list(messages),
            "temperature": config.temperature if temperature is None else temperature,
            "top_p": config.top_p if top_p is None else top_p,
            "max_tokens": max_tokens or config.max_tokens,
            "seed": key,
        }
        request |= {"tools": list(tools)} if tools else {}
        request |= {"stop": list(stop)} if stop else {}
        identity = {"url": self._url} | request
        if self._cache and (kept := self._cache.find(identity)):
            self.usage.cached += 1
            return read_reply(kept, cached=True)
        async with self._slots:
            body, reply = await self._attempt(request)
        if self._cache:
            self._cache.keep(identity, body)
        return reply

    async def _attempt(self, request: dict[str, Any]) -> tuple[Any, Reply]:
        """Ask until there is an answer; the body and what was read from it."""
        prompt_tokens = len(json.dumps([request["messages"], request.get("tools")])) // _CHARACTERS_PER_TOKEN
        attempt = 0
        while True:
            on_record = await self._rates.admit(prompt_tokens + request["max_tokens"])
            self._check_cost()
            try:
                body, reply = await self._ask(request)
            except _Failed as failure:
                attempt += 1
                wait = self._wait(failure, attempt)
                self.usage.retried += 1
                await asyncio.sleep(wait)
                continue
            if reply.prompt_tokens + reply.completion_tokens:
                on_record.tokens = reply.prompt_tokens + reply.completion_tokens
            elif self.config.max_cost is not None:
                raise RetoolError(f"{self._url} does not say how many tokens it took, so max_cost cannot be kept to")
            self.usage.add(reply, self.config.price_in, self.config.price_out)
            return body, reply

    async def _ask(self, request: dict[str, Any]) -> tuple[Any, Reply]:
        from aiohttp import ClientError

        sent = self._as_it_is_taken(request)
        try:
            async with self._session.post(self._url, json=sent) as response:
                content, status, headers = await response.read(), response.status, response.headers
        except TimeoutError as error:
            raise _Failed(f"no answer within {self.config.timeout:g} s") from error
        except ClientError as error:
            raise _Failed(str(error) or type(error).__name__) from error
        said = _error_message(content)
        if status >= 500 or status in _FOR_A_MOMENT:
            if "insufficient_quota" in said:  # comes as 429, and no waiting helps
                raise Refused(f"{self._url} answered {status}: {said}", status)
            raise _Failed(f"{status}: {said}", _seconds_asked_for(headers.get("Retry-After")))
        if status == 400 and self._learn(said, sent):
            return await self._ask(request)
        if status >= 300:
            raise Refused(f"{self._url} answered {status} to {request['model']!r}: {said}", status)
        try:
            body = json.loads(content)
            return body, read_reply(body)
        except ValueError as error:
            raise _Failed(f"what came back is no chat completion ({error}): {said}") from error

    def _as_it_is_taken(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request without what this server has refused: a seed, or the old name of the longest reply."""
        taken = dict(request)
        if "seed" in self._refused_fields:
            del taken["seed"]
        if "max_tokens" in self._refused_fields:
            taken["max_completion_tokens"] = taken.pop("max_tokens")
        return taken

    def _learn(self, said: str, sent: Mapping[str, Any]) -> bool:
        """Was what was `sent` refused for a field that can be left out or renamed? If so, it is from now on."""
        refused = {name for name in ("seed", "max_tokens") if name in sent and re.search(rf"\b{name}\b", said)}
        if "max_completion_tokens" not in said:
            refused.discard("max_tokens")
        self._refused_fields |= refused
        return bool(refused)

    def _check_cost(self) -> None:
        if self.config.max_cost is not None and self.usage.cost >= self.config.max_cost:
            raise RetoolError(
                f"{self.config.model} has cost {self.usage.cost:.2f} in {self.usage.requests} requests, and "
                f"max_cost={self.config.max_cost:g}; {self._what_is_kept()}, raise it or run the same command again"
            )

    def _wait(self, failure: _Failed, attempt: int) -> float:
        """Seconds until the next attempt; RetoolError if there is none."""
        if attempt > self.config.retries:
            raise RetoolError(
                f"{self._url} failed {attempt} times, the last time with {failure}; {self._what_is_kept()}, run the "
                "same command again to go on"
            ) from failure
        if failure.wait is None:
            return min(_LONGEST_BACKOFF, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        if failure.wait > self.config.timeout:
            raise RetoolError(
                f"{self._url} asks to come back in {failure.wait:.0f} s ({failure}); {self._what_is_kept()}, run the "
                "same command again then"
            ) from failure
        self._rates.pause(failure.wait)
        return failure.wait

    def _what_is_kept(self) -> str:
        return f"what it has answered is kept in {self._cache.folder}" if self._cache else "its answers were not kept"


def _error_message(content: bytes) -> str:
    """What the server said, for people: the message of an OpenAI error, or the beginning of whatever it is."""
    text = content.decode(errors="replace").strip()
    try:
        error = json.loads(text).get("error")
    except (ValueError, AttributeError):
        error = None
    if isinstance(error, dict) and error.get("message"):
        code = error.get("code") or error.get("type")
        return f"{error['message']} ({code})" if code else str(error["message"])
    return text[:300] or "nothing"


def _seconds_asked_for(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which may also be a date; None if it is missing or neither."""
    if not header:
        return None
    if re.fullmatch(r"\d+(\.\d*)?", header.strip()):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
