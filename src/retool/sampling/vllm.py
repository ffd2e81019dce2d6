"""Sampling by vLLM: token ids in, token ids and log-probabilities out, the weights pushed after each update.

vLLM keeps the KV cache, by the ids that led to it; each request brings all ids of its trajectory. Stop functions and
forbidden ids are Python, which vLLM does not run: tokens are streamed and the request is aborted at the first one after
which there is something to be done, so that what is kept was sampled as it should be, token by token.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import SamplerConfig
from retool.errors import RetoolError, UsageError
from retool.sampling.compatibility import end_ids
from retool.sampling.sampler import Sampler, SamplingParams, Segment, StopFunction
from retool.sampling.vllm_client import VllmClient
from retool.sampling.vllm_server import VllmServer
from retool.sampling.vllm_weights import tied_weights, write_model, write_weights

_CHECK_TOKENS = 8
_LARGEST_GAP = 0.25  # bf16 against fp32 differs by less; other or half-loaded weights soon by more
_RESTART = "start it again and run the same command, it goes on from the last checkpoint"
_COLDEST = 0.01  # vLLM takes lower temperatures for this one, but for 0


@dataclass(slots=True)
class History:
    """A trajectory's handle: all its ids so far."""

    ids: list[int]


class VllmSampler(Sampler):
    """Samples from vLLM servers that all serve `model`; a trajectory stays with one of them.

    An async context manager: on entering, the servers get the weights that `model` has. `folder` is where weights are
    handed over, which the servers must see under the same path; `remedy` is what a user is told to do where one fails.
    Raises UsageError for servers and sampling settings that cannot be used, RetoolError for a server that is lost and
    for weights that did not arrive. It gives up then: no segment is delivered twice or in part.
    """

    def __init__(self, model: PreTrainedModel, urls: Sequence[str], folder: Path, remedy: str = _RESTART):
        self.eos_ids = end_ids(model)
        self.version = 0
        self._model = model
        self.urls = urls
        self._folder = folder
        self._remedy = remedy
        self._run = uuid.uuid4().hex  # a server's cache may hold what another run computed with its version 1
        self._stack = AsyncExitStack()
        self._running = 0
        self._open, self._drained = asyncio.Event(), asyncio.Event()
        self._failure: str | None = None
        self._stats = dict.fromkeys(("requests", "scored_tokens", "weight_gap"), 0.0)

    async def __aenter__(self) -> Self:
        self._padding = self._ids_without_text()
        try:
            self._clients = [await self._stack.enter_async_context(VllmClient(url, self._remedy)) for url in self.urls]
            await self.update(0, self._model.named_parameters())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def extend(
        self, handle: History | None, ids: Sequence[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        _refuse_unlike(params.config)
        async with self._one_version():
            client = self._clients[key % len(self._clients)]
            given = [*(handle.ids if handle else ()), *ids]
            out: list[int] = []
            logprobs: list[float] = []
            reason, free = None, True
            while reason is None:
                forbidden = _forbidden(params, out)
                free = free and not forbidden
                request = self._request(params, len(out))
                self._stats["requests"] += 1
                tokens = client.stream([*given, *out], request, (*forbidden, *self._padding), self._salt)
                async with aclosing(tokens):
                    async for token, logprob in tokens:
                        out.append(token)
                        logprobs.append(logprob)
                        reason = _reason_to_stop(out, params, stop)
                        if reason or _forbidden(params, out) != forbidden:
                            break
                    else:
                        raise RetoolError(f"the vLLM server at {client.url} ended a response after {len(out)} tokens")
            model_logprobs = await self._model_logprobs(client, params.config, [*given, *out], logprobs, free)
            if params.config.temperature == 0.0:
                logprobs = [0.0] * len(out)  # what is sampled from is one token; vLLM reports the model's own
            return Segment(out, logprobs, model_logprobs, reason, self.version, History([*given, *out]))

    def release(self, handle: History) -> None:
        """Nothing to do: what vLLM's cache holds gives way to what is used."""

    async def update(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Hand the weights over by files; segments under way are finished before they are loaded, and later ones wait
        until then.

        They are written in this thread, as whatever else torch computes here: with GNU OpenMP, once other threads have
        computed too, parallel parts of all of them take half as long again, for good.
        """
        folder = self._folder / f"{self._run}-{version}"
        try:
            write_weights(folder, weights, tied_weights(self._model))
            self._open.clear()
            self._drained.clear()
            if self._running:
                await self._drained.wait()
            self.version = version
            await asyncio.gather(*(client.load(folder, self._salt) for client in self._clients))
            await self._check_weights()
        except BaseException as error:
            self._failure = f"the weights of version {version} did not reach all vLLM servers ({error or 'cancelled'})"
            raise
        finally:
            self._open.set()
            shutil.rmtree(folder, ignore_errors=True)

    def take_stats(self) -> dict[str, float]:
        """`requests`; `scored_tokens`, computed again for the model's own log-probs; `weight_gap`, by how much the
        servers' log-probs differ at most from the learner's, looked at after an update."""
        stats, self._stats = self._stats, dict.fromkeys(self._stats, 0.0)
        return stats

    @property
    def _salt(self) -> str:
        return f"{self._run}-{self.version}"  # vLLM refuses /, \ and @ here

    @asynccontextmanager
    async def _one_version(self) -> AsyncIterator[None]:
        """The weights are not replaced in here."""
        while not self._open.is_set():
            await self._open.wait()
        if self._failure:
            raise RetoolError(self._failure)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._drained.set()

    async def _model_logprobs(
        self, client: VllmClient, config: SamplingConfig, ids: list[int], logprobs: list[float], free: bool
    ) -> list[float]:
        """Those of the model for the last `len(logprobs)` ids; nothing was forbidden there if `free`."""
        if free and config in (SamplingConfig(), SamplingConfig(temperature=0.0)):
            return logprobs
        self._stats["scored_tokens"] += len(ids)
        return await client.score(ids, len(logprobs), self._salt)

    @staticmethod
    def _request(params: SamplingParams, sampled: int) -> dict[str, object]:
        """Without a seed: over a seeded request whose prompt it reads in parts vLLM 0.32 dies on a CPU."""
        return params.config.model_dump() | {
            "max_tokens": params.max_tokens - sampled,
            "stop_token_ids": sorted(params.eos_ids),
            "ignore_eos": True,  # those of the model's files
            "detokenize": False,
        }

    async def _check_weights(self) -> None:
        """Refuse servers that say something else than the model does. A few greedy tokens show wrong weights."""
        request = {"max_tokens": _CHECK_TOKENS, "temperature": 0.0, "ignore_eos": True, "detokenize": False}
        for client in self._clients:
            prompt = [0, 1, 2, 3]
            found = [pair async for pair in client.stream(prompt, request, self._padding, self._salt)]
            ids, logprobs = [token for token, _ in found], torch.tensor([logprob for _, logprob in found])
            ours = self._learner_logprobs(prompt, ids)
            gap = float((logprobs - ours).abs().max())
            self._stats["weight_gap"] = max(self._stats["weight_gap"], gap)
            if not gap < _LARGEST_GAP:
                raise RetoolError(
                    f"after weights were loaded, log-probabilities of the vLLM server at {client.url} are off by up to "
                    f"{gap:.2g}; it must serve this model's architecture, and on a CPU one with "
                    "tie_word_embeddings=false (docs/vllm.md)"
                )

    @torch.inference_mode()
    def _learner_logprobs(self, prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of `ids` after `prompt`, [len(ids)], by the model that is trained."""
        self._model.eval()  # the learner leaves it in training mode, with dropout
        given = torch.tensor([[*prompt, *ids]], device=self._model.device)
        logits_TV = self._model(input_ids=given, use_cache=False).logits[0, len(prompt) - 1 : -1].float().cpu()
        return logits_TV.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]

    @torch.inference_mode()
    def _ids_without_text(self) -> range:
        """Ids whose logits the model's head cuts off, as the tokenizer does not have them; vLLM does not."""
        logits = self._model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self._model.device)).logits
        return range(logits.shape[-1], self._model.config.get_text_config().vocab_size)


@asynccontextmanager
async def open_vllm(
    config: SamplerConfig, model: PreTrainedModel, *, sequences: int, context: int
) -> AsyncIterator[VllmSampler]:
    """A sampler of the servers at `sampler.urls`, or of one that is started with `sampler.vllm_python`.

    `context` is the longest trajectory in tokens, prompt included; `sequences` are decoded at the same time.
    """
    if bool(config.urls) == bool(config.vllm_python):
        raise UsageError(
            "sampler.backend=vllm needs either sampler.urls (servers that run already) or sampler.vllm_python (to "
            f"start one); found {'both' if config.urls else 'neither'}"
        )
    async with AsyncExitStack() as stack:
        base = Path(config.weights_folder) if config.weights_folder else None
        if base and not base.is_dir():
            raise UsageError(f"sampler.weights_folder={config.weights_folder!r} is not a folder; make it first")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="retool-weights-", dir=base)))
        urls, remedy = config.urls, _RESTART
        if config.vllm_python:
            served = folder / "served"
            write_model(served, model)
            server = VllmServer(
                config.vllm_python,
                served,
                dtype=str(model.dtype).removeprefix("torch."),
                context=context,
                sequences=sequences,
                arguments=config.vllm_args,
            )
            await stack.enter_async_context(server)
            urls, remedy = (server.url,), f"{server.log} has its output; run the same command again"
        yield await stack.enter_async_context(VllmSampler(model, urls, folder, remedy))


def _forbidden(params: SamplingParams, out: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(token) for token in params.forbid(out)) if params.forbid else ()


def _reason_to_stop(
    out: Sequence[int], params: SamplingParams, stop: StopFunction
) -> Literal["eos", "stop", "length"] | None:
    if out[-1] in params.eos_ids:
        return "eos"
    if stop(out):
        return "stop"
    return "length" if len(out) >= params.max_tokens else None


def _refuse_unlike(config: SamplingConfig) -> None:
    """Raise UsageError for settings by which vLLM would sample from another distribution than the learner computes."""
    if 0.0 < config.temperature < _COLDEST:
        raise UsageError(
            f"vLLM samples at temperature 0 or from {_COLDEST} on, found temperature={config.temperature}; take one of "
            "these or sampler.backend=engine"
        )
    if config.min_p > 0.0 and config.top_p < 1.0:
        raise UsageError(
            f"vLLM applies min_p before top_p, the learner after it; found min_p={config.min_p} and "
            f"top_p={config.top_p}: set one of the two or take sampler.backend=engine"
        )
