"""The in-process engine: samples from the very weights that are trained.

No copy of the weights, no synchronisation, no mismatch between sampler and learner. Trajectories join and leave the
batch at every step; one whose code is running keeps its row of the KV cache and takes no part until its result comes
back, when only the result's tokens are computed.

One turn of the engine: rows are given to those who wait (`scheduler`); of long texts (prompts, long results) some
chunks are read; then one token of every other active row is fed, and where it was the last pending one, the next is
sampled. A short result is fed through the steps that the others decode in, which costs nothing extra.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from retool.errors import RetoolError
from retool.sampling.choose import draw, log_total, transform_logits
from retool.sampling.compatibility import NOT_FINITE, end_ids
from retool.sampling.randomness import uniforms
from retool.sampling.runner import ModelRunner
from retool.sampling.sampler import Sampler, SamplingParams, Segment, StopFunction
from retool.sampling.scheduler import Request, Row, Scheduler

_FEED_LIMIT = 16  # a text of at most this many tokens is fed through decode steps instead of a prefill of its own
_PREFIXES_KEPT = 16  # prompts whose keys and values are kept for the rest of their group
_TOKENS_READ_TOGETHER = 512  # in chunks of several rows, which is faster than one by one
_PREFIX_SHARE = 8  # they take at most one part in this many of the cache's memory, on top of it
_STEPS_UNREAD = 3  # for which a few long results may wait for others
_ITERATIONS = 8  # of the event loop between turns; a result needs six to get from a thread through its tasks to a row
_GUESSED_SECONDS_PER_TOKEN = 1e-3  # of a prefill, until the first one was measured


@dataclass(slots=True)
class EngineStats:
    """Counters since they were last taken.

    Tokens sampled, fed through decode steps, prefilled, and copied from a prompt that was computed before; of the fed
    and prefilled ones those `recomputed_tokens` that a trajectory had lost with its row. `row_steps` are the rows that
    took part in `decode_steps`, summed. Sampling is a part of decoding.
    """

    decode_steps: int = 0
    row_steps: int = 0
    sampled_tokens: int = 0
    fed_tokens: int = 0
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    recomputed_tokens: int = 0
    decode_seconds: float = 0.0
    sampling_seconds: float = 0.0
    prefill_seconds: float = 0.0


class Engine(Sampler):
    """Continuous batching over `rows` rows of `capacity` tokens, for any decoder-only transformers model.

    With a budget `cache_bytes` there are as many rows as fit, but no more than twice `rows`, so that trajectories whose
    code runs do not keep others from decoding; `rows` of them decode at the same time. Without one there are `rows`.

    In deterministic mode every step has the same shape (all rows, the whole capacity), and there are so many rows that
    a text has the same bits in each of them; so they do not depend on who else is in the batch or on who came first,
    and no trajectory loses its row. A RuntimeWarning says where the machine does not allow that.

    Raises UsageError for models whose cache it cannot hold and for a budget that is too small, and RetoolError for
    logits of NaN or infinity, also later, to everyone who waits for a segment.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rows: int,
        capacity: int,
        prefill_chunk: int = 128,
        deterministic: bool = False,
        cache_bytes: int | None = None,
    ):
        self.model = model
        self.eos_ids = end_ids(model)
        self.version = 0
        self.capacity = capacity
        self._runner = ModelRunner(
            model, rows=rows, capacity=capacity, deterministic=deterministic, cache_bytes=cache_bytes
        )
        held = self._runner.cache.rows
        self._width = min(rows, held)
        self._scheduler = Scheduler(held, self._width, may_preempt=not deterministic)
        self._chunk = prefill_chunk
        self._deterministic = deterministic
        self._prefixes: OrderedDict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._seconds_per_token = _GUESSED_SECONDS_PER_TOKEN
        self._steps_unread = 0
        self._loop: asyncio.Task[None] | None = None
        self._stats = EngineStats()

    async def extend(
        self, handle: Row | None, ids: Sequence[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        held = len(handle.ids) if handle else 0
        if held + len(ids) + params.max_tokens > self.capacity:
            raise RetoolError(
                f"{held} tokens held + {len(ids)} new + {params.max_tokens} to sample do not fit into a row of "
                f"{self.capacity} tokens"
            )
        row = handle or Row()
        row.ids.extend(ids)
        request = Request(row, params, stop, key, asyncio.get_running_loop().create_future(), self.version)
        self._scheduler.add(request)
        self._wake()
        try:
            return await request.future
        except BaseException:  # cancelled, or the model failed: a row that the caller never saw goes back
            self._scheduler.withdraw(request, time.monotonic())
            if handle is None:
                self.release(row)
            raise

    def release(self, handle: Row) -> None:
        self._scheduler.release(handle)
        if self._scheduler.waiting:
            self._wake()

    async def update(self, version: int, weights: object = ()) -> None:
        """`weights` are not read: they are the model's own. What the cache holds of the old ones stays for its rows."""
        self.version = version
        for request in [*self._scheduler.active, *self._scheduler.waiting]:
            if request.out:
                request.updates.append((len(request.out), version))
            else:
                request.version = version
        self._prefixes.clear()

    def take_stats(self) -> dict[str, float]:
        stats, self._stats = self._stats, EngineStats()
        return asdict(stats)

    def cache_in_use(self) -> float:
        """The share of the rows that somebody holds."""
        return self._scheduler.in_use / self._scheduler.rows

    def _wake(self) -> None:
        if self._loop is None or self._loop.done():
            self._woken = asyncio.Event()
            self._loop = asyncio.create_task(self._run())
        self._woken.set()

    async def _run(self) -> None:
        """Take turns until nobody can go on. Between them the event loop runs the tools' and trajectories' code."""
        self._runner.begin()
        scheduler = self._scheduler
        try:
            while True:
                scheduler.admit(time.monotonic(), self._seconds_per_token)
                if scheduler.active:
                    with torch.inference_mode():
                        self._turn()
                    scheduler.retire(time.monotonic())
                    for _ in range(_ITERATIONS):
                        await asyncio.sleep(0)
                    continue
                pause = scheduler.seconds_to_preemption(time.monotonic(), self._seconds_per_token)
                if pause is None:
                    return
                self._woken.clear()
                with suppress(TimeoutError):  # until somebody may lose its row, or somebody comes
                    await asyncio.wait_for(self._woken.wait(), pause)
        except Exception as error:  # whoever waits must learn of it; the error is not swallowed
            for request in [*scheduler.active, *scheduler.waiting]:
                if not request.future.done():
                    request.future.set_exception(error)

    def _turn(self) -> None:
        """Read what is long, a chunk for each place in the batch that is not taken yet, then let the others decode.

        So an empty batch fills up before it decodes, and a full one is never kept waiting for more than a chunk or so.
        """
        decoding = self._decoding()
        if len(decoding) < len(self._scheduler.active) and self._is_time_to_read(decoding):
            self._steps_unread = 0
            tokens = self._chunk * (1 + max(0, self._width - len(decoding)))
            while tokens > 0 and (readers := self._next_readers()):
                tokens -= self._read_on(readers)
            decoding = self._decoding()
        if decoding:
            self._step(decoding[: self._width])

    def _is_time_to_read(self, decoding: list[Request]) -> bool:
        """A pass over few tokens takes nearly as long as one over many, so a few results that come at about the same
        time are read together, unless that lets the others decode alone for long."""
        self._steps_unread += 1
        tokens = sum(r.row.pending for r in self._scheduler.active if self._reads_long(r.row))
        few = 2 * len(decoding) > self._width and tokens < self._chunk
        return self._deterministic or not few or self._steps_unread > _STEPS_UNREAD

    def _decoding(self) -> list[Request]:
        return [request for request in self._scheduler.active if not self._reads_long(request.row)]

    # Reading

    def _reads_long(self, row: Row) -> bool:
        """Is there so much to read that it is worth a forward pass of its own? Prompts are, to be shared."""
        return row.pending > (_FEED_LIMIT if row.length and not row.is_reading else 1)

    def _next_readers(self) -> list[Row]:
        """Who reads a chunk next, all at once: the first ones in line, but no prompt twice. In deterministic mode one,
        so that the shape of what it computes is its own."""
        most = 1 if self._deterministic else max(1, _TOKENS_READ_TOGETHER // self._chunk)
        readers: list[Row] = []
        for request in self._scheduler.active:
            row = request.row
            if not self._reads_long(row) or self._paste_prompt(row):
                continue
            if row.length or not any(row.ids == other.ids for other in readers):
                readers.append(row)
            if len(readers) == most:
                break
        return readers

    def _paste_prompt(self, row: Row) -> bool:
        """Copy a prompt that another trajectory of the same group has computed; False where there is none."""
        if row.length or row.sampled or (prefix := self._prefixes.get(tuple(row.ids))) is None:
            return False
        self._prefixes.move_to_end(tuple(row.ids))
        self._runner.cache.paste_prefix(row.index, prefix)
        row.length = len(row.ids) - 1
        self._stats.reused_tokens += row.length
        return True

    def _read_on(self, rows: list[Row]) -> int:
        """Each row reads the next chunk of what is pending but for its last token, which a decode step feeds.

        Where chunks begin and end depends on nothing but the row. Returns the number of tokens that were read.
        """
        began = time.perf_counter()
        chunks = [row.ids[row.length : min(row.length + self._chunk, len(row.ids) - 1)] for row in rows]
        self._runner.read(rows, chunks)
        for row, chunk in zip(rows, chunks, strict=True):
            row.is_reading = row.pending > 1
            self._stats.recomputed_tokens += max(0, min(row.lost, row.length) - (row.length - len(chunk)))
            if row.pending == 1 and not row.sampled:
                self._keep_prompt(row)
        tokens, ended = sum(map(len, chunks)), time.perf_counter()
        self._stats.prefilled_tokens += tokens
        self._seconds_per_token = 0.9 * self._seconds_per_token + 0.1 * (ended - began) / tokens
        self._stats.prefill_seconds += ended - began
        if self.on_phase:
            self.on_phase("prefill", began, ended)
        return tokens

    def _keep_prompt(self, row: Row) -> None:
        self._prefixes[tuple(row.ids)] = self._runner.cache.copy_prefix(row.index, row.length)
        most = max(1, self._scheduler.rows * self._runner.row_bytes // _PREFIX_SHARE)
        while len(self._prefixes) > _PREFIXES_KEPT or (len(self._prefixes) > 1 and self._prefix_bytes() > most):
            self._prefixes.popitem(last=False)

    def _prefix_bytes(self) -> int:
        return sum(2 * keys.nbytes for keys, _ in self._prefixes.values())

    # Decoding

    def _step(self, requests: list[Request]) -> None:
        """Feed one token of each row; where it was the last pending one, sample the next."""
        began = time.perf_counter()
        requests = sorted(requests, key=lambda request: request.row.index)
        logits_NV = self._runner.step([request.row for request in requests])
        sampling = [number for number, request in enumerate(requests) if not request.row.pending]
        before = time.perf_counter()
        if sampling:
            if len(sampling) < len(requests):
                logits_NV = logits_NV[torch.tensor(sampling, device=logits_NV.device)]
            self._sample([requests[number] for number in sampling], logits_NV)
        ended = time.perf_counter()
        self._stats.decode_steps += 1
        self._stats.row_steps += len(requests)
        self._stats.sampled_tokens += len(sampling)
        self._stats.fed_tokens += len(requests) - len(sampling)
        self._stats.sampling_seconds += ended - before
        self._stats.decode_seconds += ended - began
        if self.on_phase:
            self.on_phase("decode", began, ended)

    def _sample(self, requests: list[Request], logits_NV: torch.Tensor) -> None:
        """Draw a token for each request, and settle the requests that it ends."""
        configs = {id(request.params.config): request.params.config for request in requests}  # to hash few of them
        configs = set(configs.values())
        if len(configs) > 1:  # evaluations beside a rollout, say: rare
            for config in configs:
                chosen = [n for n, request in enumerate(requests) if request.params.config == config]
                self._sample([requests[n] for n in chosen], logits_NV[chosen])
            return
        config = configs.pop()
        banned = [request.params.forbid(request.out) if request.params.forbid else () for request in requests]
        allowed_NV = logits_NV = logits_NV.float()
        if any(map(len, banned)):
            allowed_NV = logits_NV.clone()
            for n, ids in enumerate(banned):
                allowed_NV[n, torch.tensor(ids, dtype=torch.long, device=logits_NV.device)] = -torch.inf
        keys = np.array([request.key for request in requests], np.uint64)
        positions = np.array([request.row.sampled for request in requests], np.uint64)
        uniforms_N = torch.from_numpy(uniforms(keys, positions)).to(logits_NV.device)
        drawn_from_NV = transform_logits(allowed_NV, config)
        is_own = [drawn_from_NV is allowed_NV and not len(ids) for ids in banned]  # is it the model's distribution?
        ids_N, logprobs_N = draw(drawn_from_NV, uniforms_N)
        model_logprobs_N = logprobs_N
        if not all(is_own):
            model_logprobs_N = (logits_NV.gather(-1, ids_N[:, None]) - log_total(logits_NV)).squeeze(-1)
        drawn = [ids_N.double(), logprobs_N.double(), model_logprobs_N.double()]  # stacked, to leave the device at once
        for request, own, (token, logprob, other) in zip(requests, is_own, torch.stack(drawn, 1).tolist(), strict=True):
            self._append(request, int(token), logprob, logprob if own else other)

    def _append(self, request: Request, token: int, logprob: float, model_logprob: float) -> None:
        if math.isnan(logprob):
            raise RetoolError(NOT_FINITE)
        request.out.append(token)
        request.logprobs.append(logprob)
        request.model_logprobs.append(model_logprob)
        request.row.sampled += 1
        request.row.ids.append(token)
        if token in request.params.eos_ids:
            stop = "eos"
        elif request.stop(request.out):
            stop = "stop"
        elif len(request.out) >= request.params.max_tokens:
            stop = "length"
        else:
            return
        if not request.future.done():
            is_own = request.model_logprobs == request.logprobs
            model_logprobs = request.logprobs if is_own else request.model_logprobs
            drawn = request.out, request.logprobs, model_logprobs
            segment = Segment(*drawn, stop, request.version, request.row, request.updates or None)
            request.future.set_result(segment)
