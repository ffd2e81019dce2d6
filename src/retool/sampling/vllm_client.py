"""One vLLM server over HTTP. All that depends on vLLM's routes, and on the release that has them, is in this file.

The routes are those of `vllm serve --tokens-only --logprobs-mode processed_logprobs` with VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector

from retool.errors import RetoolError, UsageError

OLDEST, NEWEST = (0, 32), (0, 32)
"""The first and the last minor release of vLLM that `make test-vllm` has passed with."""

_SILENCE_SECONDS = 600.0  # a server that says nothing for so long, in a queue or in the middle of a stream, is lost
_NO_PROBABILITY = -9999.0  # what vLLM writes for a log-probability of -inf or NaN
_NEVER = -1e9  # a logit bias that leaves nothing of a token's probability in fp32; this route takes any number
_REMEDIES = {
    "/version": "give the URL of a vLLM server, such as http://127.0.0.1:8000",
    "/inference": "start it with --tokens-only or --enable-scale-out",
    "/": "start it with the environment variable VLLM_SERVER_DEV_MODE=1",
}


class VllmClient:
    """Speaks to the server at `url`; an async context manager, which refuses a server that it cannot sample from.

    `remedy` is what a user is told to do where the server fails. Raises UsageError for a release or for flags that are
    not supported, and RetoolError for a server that is gone, silent or out of order.
    """

    def __init__(self, url: str, remedy: str):
        self.url = url.rstrip("/")
        self._remedy = remedy
        self._weights: str | None = None

    async def __aenter__(self) -> Self:
        timeout = ClientTimeout(total=None, sock_connect=30.0, sock_read=_SILENCE_SECONDS)
        # vLLM queues what it has no room for, so nothing waits here for a connection; and it hangs up on those that
        # have rested for some seconds, perhaps just when one is used again, so each request has its own.
        connector = TCPConnector(limit=0, force_close=True)
        self._session = ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 20)
        try:
            await self._check_version()
            await self._check_logprobs()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def stream(
        self, ids: Sequence[int], sampling: dict[str, Any], forbidden: Sequence[int], salt: str
    ) -> AsyncIterator[tuple[int, float]]:
        """Ids that follow `ids`, each with its log-probability, as they are sampled; none of `forbidden` is.

        `sampling` are fields of vLLM's SamplingParams. Leaving before the end closes the connection, by which vLLM is
        told to abort the request.
        """
        body = {
            "stream": True,
            "cache_salt": salt,
            "token_ids": list(ids),
            "sampling_params": sampling | {"logprobs": 0},
        }
        if len(forbidden):
            body["sampling_params"]["logit_bias"] = {str(token): _NEVER for token in forbidden}
        with self._named():
            response = await self._ask("POST", "/inference/v1/generate", body)
            try:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        for token, logprob in self._sampled(json.loads(line.removeprefix(b"data: "))):
                            yield token, logprob
            finally:
                response.close()

    async def score(self, ids: Sequence[int], last: int, salt: str) -> list[float]:
        """The model's own log-probabilities of the `last` ids, at temperature 1 with nothing left out.

        vLLM leaves every sampling setting out of those of a prompt. It computes the whole prompt for them.
        """
        body = {
            "cache_salt": salt,
            "token_ids": list(ids),
            "sampling_params": {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0},
        }
        answer = await self._json("POST", "/inference/v1/generate", body)
        scored = zip(ids[-last:], answer["prompt_logprobs"][-last:], strict=True)
        return [_probability(entry[str(token)]["logprob"], self.url) for token, entry in scored]

    async def load(self, folder: Path, name: str) -> None:
        """Replace the weights by the safetensors files in `folder`, which the server must see under the same path.

        Requests under way are finished first, new ones wait, and what the cache holds of the old weights is dropped.
        `name` is what the server calls these weights; a stream that others have a part in is refused.
        """
        await self._json("POST", "/pause?mode=wait")
        try:
            order = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            await self._json("POST", "/collective_rpc", order)
            await self._json("POST", "/update_weight_version", {"new_version": name})
        finally:
            await self._json("POST", "/resume")
        self._weights = name

    async def _check_version(self) -> None:
        found = (await self._json("GET", "/version"))["version"]
        numbers = re.match(r"(\d+)\.(\d+)", found)
        if not numbers or not OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
            supported = " to ".join(f"{major}.{minor}" for major, minor in dict.fromkeys((OLDEST, NEWEST)))
            raise UsageError(f"the server at {self.url} runs vLLM {found}; supported is vLLM {supported}: install that")

    async def _check_logprobs(self) -> None:
        """Whatever else it might have sampled, the only token allowed has probability 1 in what is sampled from."""
        sampling = {"max_tokens": 1, "allowed_token_ids": [0], "ignore_eos": True}
        async for _, logprob in self.stream([0], sampling, (), "probe"):
            if logprob < -1e-3:
                raise UsageError(
                    f"the vLLM server at {self.url} reports the log-probabilities of another distribution than the one "
                    "it samples from; start it with --logprobs-mode processed_logprobs"
                )

    def _sampled(self, event: dict[str, Any]) -> Iterator[tuple[int, float]]:
        if "error" in event:
            raise RetoolError(f"the vLLM server at {self.url} failed: {_message(event)}; {self._remedy}")
        for choice in event["choices"]:
            written_by = {span["version"] for span in choice.get("weight_versions") or ()}
            if self._weights is not None and written_by - {self._weights}:
                raise RetoolError(
                    f"the weights of the vLLM server at {self.url} were replaced by somebody else; a server that is "
                    "trained with belongs to one run"
                )
            for entry in choice["logprobs"]["content"]:
                yield entry["token_id"], _probability(entry["logprob"], self.url)

    async def _json(self, method: str, path: str, body: Any = None) -> Any:
        with self._named():
            async with await self._ask(method, path, body) as response:
                return await response.json()

    async def _ask(self, method: str, path: str, body: Any) -> ClientResponse:
        response = await self._session.request(method, self.url + path, json=body)
        if response.status == 200:
            return response
        async with response:
            if response.status == 404:
                remedy = next(remedy for start, remedy in _REMEDIES.items() if path.startswith(start))
                raise UsageError(f"the vLLM server at {self.url} does not know {path.partition('?')[0]}; {remedy}")
            text = await response.text()
        try:
            text = _message(json.loads(text))
        except ValueError:  # an error from before vLLM's own code, such as a proxy's page
            text = text[:200]
        raise RetoolError(f"the vLLM server at {self.url} answered {path} with status {response.status}: {text}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn what the network reports into an error that names the server."""
        try:
            yield
        except (ClientError, TimeoutError) as error:
            raise RetoolError(
                f"the vLLM server at {self.url} is gone ({type(error).__name__}: {error}); {self._remedy}"
            ) from error


def _probability(logprob: float, url: str) -> float:
    if logprob <= _NO_PROBABILITY:
        raise RetoolError(
            f"the vLLM server at {url} sampled a token without a probability: its logits are NaN or infinite; training "
            "has diverged, or numbers overflow: go back to an earlier checkpoint with a lower learning rate, or serve "
            "with --dtype float32"
        )
    return logprob


def _message(answer: Any) -> str:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(error.get("message", error) if isinstance(error, dict) else error).strip().rstrip(".")
