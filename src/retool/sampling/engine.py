"""The in-process engine: samples from the very weights that are trained.

No copy of the weights, no synchronisation, no mismatch between sampler and learner. Trajectories join and leave the
batch at every step; one whose code is running keeps its row of the KV cache and takes no part until its result comes
back, when only the result's tokens are computed.

One step of the engine: every active row feeds one token. A row with a long text to read (a prompt, a long result)
first reads all but the last token of it by itself, in chunks; a short result is fed through the steps that the others
decode in, which costs nothing extra. The token fed last is followed by a sample.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from retool.errors import RetoolError, UsageError
from retool.sampling.cache import SlotCache
from retool.sampling.choose import draw, transform_logits
from retool.sampling.randomness import uniforms
from retool.sampling.sampler import Sampler, SamplingParams, Segment, StopFunction

_FEED_LIMIT = 16  # a text of at most this many tokens is fed through decode steps instead of a prefill of its own
_SPAN_BUCKET = 64  # cache positions read by a step are rounded up to this
_PREFIXES_KEPT = 16  # prompts whose keys and values are kept for the rest of their group
_CHECK_TOKENS = 6  # read with and without the cache when an engine is made
_NOT_FINITE = (
    "the model's logits are NaN or infinite: training has diverged, or numbers overflow; go back to an earlier "
    "checkpoint with a lower learning rate, or take model.dtype=float32"
)


@dataclass(slots=True, eq=False)
class Row:
    """A trajectory's place in the engine: `length` tokens are in the cache, `pending` ones are still to be fed."""

    index: int
    length: int = 0
    pending: deque[int] = field(default_factory=deque)
    sampled: int = 0  # tokens drawn so far, over all segments: the position of the next random number


@dataclass(slots=True, eq=False)
class _Request:
    row: Row | None
    ids: Sequence[int]
    params: SamplingParams
    stop: StopFunction
    key: int
    future: asyncio.Future[Segment]
    out: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class EngineStats:
    """Counters since the last `take_stats`: tokens and seconds by phase."""

    decode_steps: int = 0
    sampled_tokens: int = 0
    fed_tokens: int = 0
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    decode_seconds: float = 0.0
    prefill_seconds: float = 0.0


class Engine(Sampler):
    """Continuous batching over `rows` rows of `capacity` tokens. Works with any decoder-only transformers model.

    In deterministic mode every step has the same shape (all rows, the whole capacity), so that the bits of a row do
    not depend on who else is in the batch. Raises UsageError for models whose cache it cannot hold, and RetoolError
    for logits of NaN or infinity, also later, to everyone who waits for a segment.
    """

    def __init__(
        self, model: PreTrainedModel, *, rows: int, capacity: int, prefill_chunk: int = 128, deterministic: bool = False
    ):
        _check_config(model, capacity)
        self.model = model
        self.eos_ids = _eos_ids(model)
        self.version = 0
        self.capacity = capacity
        self._cache = SlotCache(model.config, rows, capacity, model.device, model.dtype)
        self._free = list(range(rows))[::-1]
        self._rows = rows
        self._chunk = prefill_chunk
        self._deterministic = deterministic
        self._waiting: deque[_Request] = deque()
        self._active: list[_Request] = []
        self._prefixes: OrderedDict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._positions_S = torch.arange(capacity, device=model.device)
        self._loop: asyncio.Task[None] | None = None
        self._check_cache()
        self._stats = EngineStats()

    async def extend(
        self, handle: Row | None, ids: Sequence[int], params: SamplingParams, stop: StopFunction, key: int
    ) -> Segment:
        held = handle.length + len(handle.pending) if handle else 0
        if held + len(ids) + params.max_tokens > self.capacity:
            raise RetoolError(
                f"{held} tokens held + {len(ids)} new + {params.max_tokens} to sample do not fit into a row of "
                f"{self.capacity} tokens"
            )
        request = _Request(handle, ids, params, stop, key, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._wake()
        try:
            return await request.future
        except BaseException:  # cancelled, or the model failed: a row that the caller never saw goes back
            self._withdraw(request)
            if handle is None and request.row is not None:
                self.release(request.row)
            raise

    def release(self, handle: Row) -> None:
        self._free.append(handle.index)
        self._free.sort(reverse=True)  # low rows first: the step covers rows up to the highest one in use
        if self._waiting:
            self._wake()

    async def update(self, version: int, weights: object = ()) -> None:
        """`weights` are not read: they are the model's own."""
        self.version = version
        self._prefixes.clear()

    def take_stats(self) -> dict[str, float]:
        stats, self._stats = self._stats, EngineStats()
        return asdict(stats)

    def _wake(self) -> None:
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())

    def _withdraw(self, request: _Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        if request in self._active:
            self._active.remove(request)

    async def _run(self) -> None:
        """Step until nobody can go on. Between steps the event loop runs the tools' and trajectories' code."""
        self.model.eval()  # the learner leaves it in training mode, with dropout
        try:
            self._admit()
            while self._active:
                with torch.inference_mode():
                    self._step()
                await asyncio.sleep(0)
                self._admit()
        except Exception as error:  # whoever waits must learn of it; the error is not swallowed
            for request in [*self._active, *self._waiting]:
                if not request.future.done():
                    request.future.set_exception(error)
            self._active.clear()
            self._waiting.clear()

    def _admit(self) -> None:
        """Give a row to those who wait for one, first come first served; who has one goes on at once."""
        still_waiting: deque[_Request] = deque()
        for request in self._waiting:
            if request.row is None:
                if not self._free:
                    still_waiting.append(request)
                    continue
                request.row = Row(self._free.pop())
                self._read_prompt(request.row, request.ids)
            else:
                request.row.pending.extend(request.ids)
            self._active.append(request)
        self._waiting = still_waiting
        for request in self._active:
            if len(request.row.pending) > _FEED_LIMIT:
                self._prefill(request.row)

    def _read_prompt(self, row: Row, ids: Sequence[int]) -> None:
        """Prefill a prompt, or copy it where a trajectory of the same group has computed it."""
        row.pending.extend(ids)
        prompt = tuple(ids)
        if prompt in self._prefixes:
            self._prefixes.move_to_end(prompt)
            self._cache.paste_prefix(row.index, self._prefixes[prompt])
            row.length = len(ids) - 1
            row.pending = deque(ids[-1:])
            self._stats.reused_tokens += row.length
        elif len(ids) > 1:
            self._prefill(row)
            self._prefixes[prompt] = self._cache.copy_prefix(row.index, row.length)
            while len(self._prefixes) > _PREFIXES_KEPT:
                self._prefixes.popitem(last=False)

    def _prefill(self, row: Row) -> None:
        """Read all pending tokens but the last, in chunks that depend on nothing but this row."""
        began = time.perf_counter()
        while len(row.pending) > 1:
            chunk = [row.pending.popleft() for _ in range(min(self._chunk, len(row.pending) - 1))]
            self._read(row, chunk)
            self._stats.prefilled_tokens += len(chunk)
        self._stats.prefill_seconds += time.perf_counter() - began

    @torch.inference_mode()
    def _read(self, row: Row, chunk: list[int]) -> torch.Tensor:
        """Append a chunk to one row of the cache. Returns the logits after it, [1, V]."""
        positions_Q = torch.arange(row.length, row.length + len(chunk), device=self.model.device)
        span = self._span(row.length + len(chunk))
        mask_QS = self._positions_S[:span] <= positions_Q[:, None]
        self._cache.aim(slice(row.index, row.index + 1), positions_Q[None], span)
        row.length += len(chunk)
        return self._forward(torch.tensor([chunk], device=self.model.device), positions_Q[None], mask_QS[None, None])

    def _step(self) -> None:
        """Feed one token of every active row; where it was the last pending one, sample the next."""
        began = time.perf_counter()
        count = self._rows if self._deterministic else max(r.row.index for r in self._active) + 1
        ids, positions = np.zeros(count, np.int64), np.full(count, self.capacity, np.int64)
        longest = 0
        for request in self._active:
            row = request.row
            ids[row.index], positions[row.index] = row.pending.popleft(), row.length
            row.length += 1
            longest = max(longest, row.length)
        device = self.model.device
        ids_R, positions_R = torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device)
        span = self._span(longest)
        mask_RS = self._positions_S[:span] <= positions_R[:, None]
        self._cache.aim(slice(0, count), positions_R[:, None], span)
        logits_RV = self._forward(
            ids_R[:, None], positions_R.clamp(max=self.capacity - 1)[:, None], mask_RS[:, None, None]
        )
        sampling = [request for request in self._active if not request.row.pending]
        if sampling:
            self._sample(sampling, logits_RV)
        self._stats.decode_steps += 1
        self._stats.fed_tokens += len(self._active) - len(sampling)
        self._active = [request for request in self._active if not request.future.done()]
        self._stats.decode_seconds += time.perf_counter() - began

    def _sample(self, requests: list[_Request], logits_RV: torch.Tensor) -> None:
        """Draw a token for each request, and settle the requests that it ends."""
        rows_N = torch.tensor([request.row.index for request in requests], device=logits_RV.device)
        logits_NV = logits_RV[rows_N].float()
        for n, request in enumerate(requests):
            if request.params.forbid is not None and len(banned := request.params.forbid(request.out)):
                logits_NV[n, torch.tensor(banned, device=logits_NV.device)] = -torch.inf
        configs = {request.params.config for request in requests}
        for config in configs:  # one, as a rule
            chosen = [n for n, request in enumerate(requests) if request.params.config == config]
            part_NV = logits_NV if len(configs) == 1 else logits_NV[chosen]
            keys = np.array([requests[n].key for n in chosen], np.uint64)
            positions = np.array([requests[n].row.sampled for n in chosen], np.uint64)
            uniforms_N = torch.from_numpy(uniforms(keys, positions)).to(logits_NV.device)
            ids_N, logprobs_N = draw(transform_logits(part_NV, config), uniforms_N)
            for n, token, logprob in zip(chosen, ids_N.tolist(), logprobs_N.tolist(), strict=True):
                self._append(requests[n], token, logprob)
        self._stats.sampled_tokens += len(requests)

    def _append(self, request: _Request, token: int, logprob: float) -> None:
        if math.isnan(logprob):
            raise RetoolError(_NOT_FINITE)
        request.out.append(token)
        request.logprobs.append(logprob)
        request.row.sampled += 1
        request.row.pending.append(token)
        if token in request.params.eos_ids:
            stop = "eos"
        elif request.stop(request.out):
            stop = "stop"
        elif len(request.out) >= request.params.max_tokens:
            stop = "length"
        else:
            return
        if not request.future.done():
            request.future.set_result(
                Segment(request.out, request.logprobs, request.logprobs, stop, self.version, request.row)
            )

    def _span(self, longest: int) -> int:
        if self._deterministic:
            return self.capacity
        return min(self.capacity, -(-longest // _SPAN_BUCKET) * _SPAN_BUCKET)

    def _forward(self, ids_RQ: torch.Tensor, positions_RQ: torch.Tensor, mask_R1QS: torch.Tensor) -> torch.Tensor:
        """Logits after the last token of each row, [R, V]. The mask is True where a token may look."""
        if self.model.config._attn_implementation == "eager":  # adds the mask to the scores, whatever its type
            least = torch.finfo(self.model.dtype).min
            mask_R1QS = torch.zeros_like(mask_R1QS, dtype=self.model.dtype).masked_fill_(~mask_R1QS, least)
        output = self.model(
            input_ids=ids_RQ,
            position_ids=positions_RQ,
            attention_mask=mask_R1QS,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    @torch.inference_mode()
    def _check_cache(self) -> None:
        """Refuse a model that says something else through this cache than without one, before it is sampled wrongly."""
        self.model.eval()
        ids = list(range(min(_CHECK_TOKENS, self.capacity)))
        row = Row(0)
        try:
            self._read(row, ids[:-1])
            ours_V = self._read(row, ids[-1:])[0].float()
            plain_V = self.model(input_ids=torch.tensor([ids], device=self.model.device), use_cache=False).logits[0, -1]
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"{self._refusal()} ({type(error).__name__}: {str(error).splitlines()[0]})") from error
        if not plain_V.isfinite().all():
            raise RetoolError(_NOT_FINITE)
        gap = float((ours_V - plain_V.float()).norm() / plain_V.float().norm())
        if not gap < (1e-3 if self.model.dtype == torch.float32 else 5e-2):
            raise UsageError(f"{self._refusal()} (the logits differ by a share of {gap:.1g})")

    def _refusal(self) -> str:
        config = self.model.config
        return (
            f"model type {config.model_type!r} with {config._attn_implementation!r} attention does not work with the "
            "engine's KV cache; take a decoder-only model with plain attention over keys and values, such as 'llama'"
        )


def _eos_ids(model: PreTrainedModel) -> frozenset[int]:
    """What generation_config.json lists: one id, several (Qwen: <|im_end|> and <|endoftext|>), or none."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([listed] if isinstance(listed, int) else listed or ())


def _check_config(model: PreTrainedModel, capacity: int) -> None:
    """Refuse models by what their config says of their attention; the rest is for `_check_cache` to find out."""
    config = model.config.get_text_config()
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(f"model type {name!r} is an encoder-decoder; ReTool needs a decoder-only language model")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise UsageError(
            f"model type {name!r} has layers of type {sorted(kinds)}; the engine holds attention caches only"
        )
    window = getattr(config, "sliding_window", None)
    sliding = "sliding_attention" in kinds or (window and getattr(config, "layer_types", None) is None)
    if sliding and window and window < capacity:
        raise UsageError(
            f"model type {name!r} attends over a sliding window of {window} tokens, shorter than the {capacity} tokens "
            f"of prompt and response; lower rollout.max_tokens"
        )
