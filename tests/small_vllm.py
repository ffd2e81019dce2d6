"""The routes of a vLLM server that ReTool uses, served from a transformers model in this process.

What it answers, and what it refuses, is what vLLM 0.32 does; `test_vllm_server.py` asks a real one the same.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from safetensors.torch import load_file
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.sampling.choose import transform_logits


class SmallVllm:
    """`script`, if set, maps the ids so far to all that is sampled next; `chunk` tokens make an event of a stream."""

    def __init__(self, model: PreTrainedModel):
        self.model = copy.deepcopy(model).eval()
        head = self.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # as ReTool starts a server: not tied
        self.script: Callable[[list[int]], Sequence[int]] | None = None
        self.chunk = 3
        self.version, self.weights = "0.32.0", "default"
        self.processed = self.dev = self.scale_out = True
        self.lost_weights: set[str] = set()  # names that a reload forgets, as vLLM on CPUs does with a tied head
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.dies_after: int | None = None  # events of a stream
        self.hangs_up = False  # on a connection that is used again, as one does that has just decided to
        self._callers: set[Any] = set()
        self.requests: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.aborted = 0
        self.loaded: dict[str, torch.Tensor] = {}

    @property
    def streams(self) -> list[dict[str, Any]]:
        """Requests of trajectories: without those that a client probes with."""
        return [body for body in self.requests if body["stream"] and "stop_token_ids" in body["sampling_params"]]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/version", self._version)
        if self.scale_out:
            app.router.add_post("/inference/v1/generate", self._generate)
        if self.dev:
            for path in ("/pause", "/resume", "/collective_rpc", "/update_weight_version"):
                app.router.add_post(path, self._control)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _control(self, request: web.Request) -> web.Response:
        self.calls.append(request.path_qs)
        if request.path == "/collective_rpc":
            order = await request.json()
            assert order["method"] == "reload_weights"
            files = sorted(Path(order["kwargs"]["weights_path"]).glob("*.safetensors"))
            if not files:
                return web.json_response({"error": {"message": "Cannot find any model weights"}}, status=500)
            self.loaded = {name: weight for file in files for name, weight in load_file(file).items()}
            parameters = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, weight in self.loaded.items():
                    if name not in self.lost_weights:
                        parameters[name].copy_(weight)
        elif request.path == "/update_weight_version":
            self.weights = (await request.json())["new_version"]
        return web.json_response({})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        caller = request.transport.get_extra_info("peername")
        if self.hangs_up and caller in self._callers:
            request.transport.abort()
        self._callers.add(caller)
        body = await request.json()
        self.requests.append(body)
        if len(body["cache_salt"]) > 128 or set(body["cache_salt"]) & set("@/\\\0"):
            return web.json_response({"error": {"message": "Parameter 'cache_salt' must not"}}, status=400)
        if not body.setdefault("stream", False):
            return web.json_response({"prompt_logprobs": self._prompt_logprobs(body["token_ids"])})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        ids, most = list(body["token_ids"]), body["sampling_params"]["max_tokens"]
        script = (
            None if self.script is None or "stop_token_ids" not in body["sampling_params"] else list(self.script(ids))
        )
        generator = torch.Generator().manual_seed(len(self.requests))
        sampled, events = 0, 0
        try:
            while sampled < most:
                await self.going_on.wait()
                entries, finish = [], None
                while len(entries) < self.chunk and finish is None:
                    token, logprob = self._sample(ids, body["sampling_params"], script and script.pop(0), generator)
                    ids.append(token)
                    entries.append({"token_id": token, "logprob": logprob})
                    sampled += 1
                    if token in body["sampling_params"].get("stop_token_ids", ()):
                        finish, most = "stop", sampled
                    elif sampled == most:
                        finish = "length"
                spans = finish and [{"version": self.weights, "start": 0, "end": sampled}]
                choice = {"finish_reason": finish, "weight_versions": spans, "logprobs": {"content": entries}}
                if events == self.dies_after:
                    request.transport.abort()
                await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
                events += 1
                await asyncio.sleep(0.005)
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            self.aborted += 1
        return response

    @torch.inference_mode()
    def _logits(self, ids: Sequence[int]) -> torch.Tensor:
        return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()

    def _prompt_logprobs(self, ids: list[int]) -> list[dict[str, Any] | None]:
        logprobs_TV = self._logits(ids).log_softmax(-1)
        rest = zip(ids[1:], logprobs_TV[:-1], strict=True)
        return [None, *({str(token): {"logprob": float(row_V[token])}} for token, row_V in rest)]

    def _sample(
        self, ids: list[int], sampling: dict[str, Any], scripted: int | None, generator: torch.Generator
    ) -> tuple[int, float]:
        raw_V = self._logits(ids)[-1]
        logits_V = raw_V.clone()
        for token, bias in sampling.get("logit_bias", {}).items():
            logits_V[int(token)] += bias
        if "allowed_token_ids" in sampling:
            kept = torch.tensor(sampling["allowed_token_ids"])
            logits_V = torch.full_like(logits_V, -torch.inf).scatter(0, kept, logits_V[kept])
        greedy = sampling.get("temperature", 1.0) == 0.0
        if not greedy:  # of a greedy request vLLM reports the model's own log-probabilities
            settings = {name: sampling[name] for name in SamplingConfig.model_fields if name in sampling}
            logits_V = transform_logits(logits_V[None], SamplingConfig(**settings))[0]
        token = scripted
        if token is None:
            probs_V = logits_V.softmax(-1)
            token = int(logits_V.argmax() if greedy else torch.multinomial(probs_V, 1, generator=generator))
        logprobs_V = (logits_V if self.processed else raw_V).log_softmax(-1)
        return token, float(logprobs_V[token].nan_to_num(-9999.0).clamp_min(-9999.0))
