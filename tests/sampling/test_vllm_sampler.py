"""The vLLM sampler against a server in this process that speaks vLLM's routes, with transformers as the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import SamplerConfig
from retool.errors import RetoolError, UsageError
from retool.sampling.choose import transform_logits
from retool.sampling.sampler import SamplingParams, trajectory_key
from retool.sampling.vllm import VllmSampler, open_vllm
from small_vllm import SmallVllm

PROMPT = [30, 31, 32, 33]
Talk = Callable[[VllmSampler], Awaitable[Any]]


def talk(model: PreTrainedModel, servers: SmallVllm | Sequence[SmallVllm], tmp_path: Path, conversation: Talk) -> Any:
    """Run a conversation with a sampler of the servers."""

    async def run() -> Any:
        async with AsyncExitStack() as stack:
            some = [servers] if isinstance(servers, SmallVllm) else servers
            urls = [await stack.enter_async_context(server.serve()) for server in some]
            return await conversation(await stack.enter_async_context(VllmSampler(model, urls, tmp_path)))

    return asyncio.run(run())


def params(max_tokens: int = 12, eos: Iterable[int] = (), forbid: Any = None, **sampling: float) -> SamplingParams:
    return SamplingParams(SamplingConfig(**sampling), max_tokens, frozenset(eos), forbid)


def never(_: Sequence[int]) -> bool:
    return False


def oracle(model: PreTrainedModel, ids: Sequence[int], last: int, sampling: SamplingConfig) -> list[float]:
    """Log-probabilities of the `last` ids by transformers and the learner's own transformation."""
    with torch.inference_mode():
        logits_TV = model(torch.tensor([list(ids)]), use_cache=False).logits[0, -last - 1 : -1]
    logprobs_TV = transform_logits(logits_TV, sampling).log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(ids[-last:])[:, None])[:, 0].tolist()


@pytest.fixture
def vllm(model: PreTrainedModel) -> SmallVllm:
    return SmallVllm(model)


def test_a_stop_inside_a_chunk_cuts_there_and_aborts_the_request(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    vllm.script = lambda _: [40, 41, 42, 43, 44, *[45] * 1000]

    async def conversation(sampler: VllmSampler) -> None:
        segment = await sampler.extend(None, PROMPT, params(1000), lambda out: out[-2:] == [43, 44], key=1)
        assert (segment.ids, segment.stop, segment.version) == ([40, 41, 42, 43, 44], "stop", 0)
        assert len(segment.logprobs) == 5
        for _ in range(100):
            if vllm.aborted:
                break
            await asyncio.sleep(0.02)
        assert vllm.aborted == 1

    talk(model, vllm, tmp_path, conversation)


def test_a_segment_ends_for_the_first_reason_that_comes(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    vllm.script = lambda _: [40, 41, 42, 43, 44, 45, 46, 47]

    async def conversation(sampler: VllmSampler) -> list[tuple[list[int], str]]:
        asked = [params(5), params(5, eos=[42]), params(4, eos=[9])]
        found = [await sampler.extend(None, PROMPT, each, never, key=1) for each in asked]
        return [(segment.ids, segment.stop) for segment in found]

    assert talk(model, vllm, tmp_path, conversation) == [
        ([40, 41, 42, 43, 44], "length"),
        ([40, 41, 42], "eos"),
        ([40, 41, 42, 43], "length"),
    ]


def test_log_probs_are_those_of_the_distribution_that_was_sampled_from_and_those_of_the_model(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        for settings in ({}, {"temperature": 0.6, "top_p": 0.8, "top_k": 50}, {"min_p": 0.02}):
            segment = await sampler.extend(None, PROMPT, params(**settings), never, key=2)
            ids = [*PROMPT, *segment.ids]
            assert segment.logprobs == pytest.approx(oracle(model, ids, 12, SamplingConfig(**settings)), abs=1e-5)
            assert segment.model_logprobs == pytest.approx(oracle(model, ids, 12, SamplingConfig()), abs=1e-5)
            assert (segment.model_logprobs is segment.logprobs) == (settings == {})

    talk(model, vllm, tmp_path, conversation)


def test_a_greedy_token_is_certain_and_has_the_models_probability_beside_that(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        segment = await sampler.extend(None, PROMPT, params(temperature=0.0), never, key=2)
        assert segment.logprobs == [0.0] * 12
        plain = oracle(model, [*PROMPT, *segment.ids], 12, SamplingConfig())
        assert segment.model_logprobs == pytest.approx(plain, abs=1e-5)
        assert all(body["stream"] for body in vllm.requests)  # nothing is computed a second time for it

    talk(model, vllm, tmp_path, conversation)


def test_what_is_forbidden_may_depend_on_what_was_sampled(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    """After an even id every even one is forbidden: each token's distribution is the one that leaves these out."""
    even = list(range(0, model.config.vocab_size, 2))

    def forbid(out: Sequence[int]) -> list[int]:
        return even if len(out) and out[-1] % 2 == 0 else []

    async def conversation(sampler: VllmSampler) -> None:
        segment = await sampler.extend(None, PROMPT, params(40, forbid=forbid), never, key=3)
        pairs = list(zip([1, *segment.ids], segment.ids, strict=False))
        assert not any(before % 2 == 0 and token % 2 == 0 for before, token in pairs)
        assert any(token % 2 == 0 for token in segment.ids)
        for position, (before, token) in enumerate(pairs):
            with torch.no_grad():
                logits_V = model(torch.tensor([[*PROMPT, *segment.ids[:position]]])).logits[0, -1]
            if before % 2 == 0:
                logits_V[even] = -torch.inf
            assert segment.logprobs[position] == pytest.approx(float(logits_V.log_softmax(-1)[token]), abs=1e-5)
        plain = oracle(model, [*PROMPT, *segment.ids], 40, SamplingConfig())
        assert segment.model_logprobs == pytest.approx(plain, abs=1e-5)

    talk(model, vllm, tmp_path, conversation)


def test_what_is_always_forbidden_takes_one_request(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        await sampler.extend(None, PROMPT, params(forbid=lambda _: [40, 41]), never, key=3)
        assert [set(body["sampling_params"]["logit_bias"]) for body in vllm.streams] == [{"40", "41"}]

    talk(model, vllm, tmp_path, conversation)


def test_ids_that_the_tokenizer_does_not_have_are_never_sampled(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    model.get_output_embeddings().register_forward_hook(lambda _module, _inputs, logits: logits[..., :300])

    async def conversation(sampler: VllmSampler) -> None:
        segment = await sampler.extend(None, PROMPT, params(60), never, key=3)
        assert max(segment.ids) < 300 < model.config.vocab_size
        plain = oracle(model, [*PROMPT, *segment.ids], 60, SamplingConfig())
        assert segment.logprobs == pytest.approx(plain, abs=1e-5)

    talk(model, vllm, tmp_path, conversation)


def test_a_later_turn_brings_all_ids_of_the_trajectory(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        turn = await sampler.extend(None, PROMPT, params(), never, 5)
        await sampler.extend(turn.handle, [50, 51], params(), never, 5)
        first, second = vllm.streams
        assert second["token_ids"][4:-2] == turn.ids
        assert second["token_ids"][: len(first["token_ids"])] == first["token_ids"] == PROMPT
        assert second["token_ids"][-2:] == [50, 51] and len(second["token_ids"]) == 4 + 12 + 2
        assert first["cache_salt"] == second["cache_salt"]

    talk(model, vllm, tmp_path, conversation)


def test_a_trajectory_stays_with_its_server_and_all_servers_are_used(model: PreTrainedModel, tmp_path: Path) -> None:
    servers = [SmallVllm(model), SmallVllm(model)]

    async def conversation(sampler: VllmSampler) -> None:
        for sample in range(16):
            key, before = trajectory_key(0, sample), [len(server.streams) for server in servers]
            first = await sampler.extend(None, PROMPT, params(2), never, key)
            await sampler.extend(first.handle, [50], params(2), never, key)
            taken = [len(server.streams) - count for server, count in zip(servers, before, strict=True)]
            assert sorted(taken) == [0, 2]
        assert all(server.streams for server in servers)

    talk(model, servers, tmp_path, conversation)


def test_an_update_brings_the_learners_weights_and_leaves_nothing_of_the_old_ones(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        before = await sampler.extend(None, PROMPT, params(), never, key=4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        await sampler.update(7, model.named_parameters())
        after = await sampler.extend(before.handle, [50], params(), never, key=4)
        assert (before.version, after.version) == (0, 7)
        ids = [*PROMPT, *before.ids, 50, *after.ids]
        assert after.logprobs == pytest.approx(oracle(model, ids, 12, SamplingConfig()), abs=1e-5)
        assert vllm.streams[0]["cache_salt"] != vllm.streams[1]["cache_salt"]
        assert torch.equal(vllm.loaded["lm_head.weight"], vllm.loaded["model.embed_tokens.weight"])
        assert list(tmp_path.iterdir()) == []
        assert 0 < sampler.take_stats()["weight_gap"] < 1e-4

    talk(model, vllm, tmp_path, conversation)


def test_no_segment_mixes_weights(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    """One under way is finished with the old weights before the new ones are loaded; one that comes later waits."""

    async def conversation(sampler: VllmSampler) -> None:
        loads = len(vllm.calls)
        vllm.going_on.clear()
        running = asyncio.create_task(sampler.extend(None, PROMPT, params(), never, key=1))
        await asyncio.sleep(0.05)
        updating = asyncio.create_task(sampler.update(1, model.named_parameters()))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(sampler.extend(None, PROMPT, params(), never, key=2))
        await asyncio.sleep(0.1)
        assert len(vllm.calls) == loads and len(vllm.streams) == 1
        vllm.going_on.set()
        await updating
        assert (await running).version == 0 and (await waiting).version == 1
        assert vllm.calls[loads:] == ["/pause?mode=wait", "/collective_rpc", "/update_weight_version", "/resume"]

    talk(model, vllm, tmp_path, conversation)


def test_weights_that_did_not_arrive_stop_the_run(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        vllm.lost_weights = {"lm_head.weight"}
        with torch.no_grad():
            model.get_output_embeddings().weight.add_(torch.randn_like(model.get_output_embeddings().weight))
        with pytest.raises(RetoolError, match=r"are off by up to .*tie_word_embeddings=false"):
            await sampler.update(1, model.named_parameters())
        with pytest.raises(RetoolError, match="weights of version 1 did not reach all vLLM servers"):
            await sampler.extend(None, PROMPT, params(), never, key=1)

    talk(model, vllm, tmp_path, conversation)


def test_a_server_whose_weights_somebody_else_replaced_is_refused(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        vllm.weights = "another run's"
        with pytest.raises(RetoolError, match="replaced by somebody else"):
            await sampler.extend(None, PROMPT, params(), never, key=1)

    talk(model, vllm, tmp_path, conversation)


def test_a_server_that_dies_is_an_error_and_the_handle_stays_what_it_was(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        first = await sampler.extend(None, PROMPT, params(), never, key=1)
        vllm.dies_after = 2
        with pytest.raises(RetoolError, match=r"vLLM server at http://127.0.0.1:\d+ is gone"):
            await sampler.extend(first.handle, [50], params(), never, key=1)
        assert first.handle.ids == [*PROMPT, *first.ids]
        vllm.dies_after = None
        again = await sampler.extend(first.handle, [50], params(), never, key=1)
        assert again.handle.ids == [*PROMPT, *first.ids, 50, *again.ids]

    talk(model, vllm, tmp_path, conversation)


def test_a_server_that_hangs_up_between_requests_loses_nothing(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path
) -> None:
    vllm.hangs_up = True

    async def conversation(sampler: VllmSampler) -> None:
        for key in range(3):
            segment = await sampler.extend(None, PROMPT, params(4), never, key)
            assert len(segment.ids) == 4

    talk(model, vllm, tmp_path, conversation)


def test_a_cancelled_segment_aborts_its_request(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        task = asyncio.create_task(sampler.extend(None, PROMPT, params(400), never, key=1))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert vllm.aborted == 1
        await sampler.update(1, model.named_parameters())  # does not wait for it

    talk(model, vllm, tmp_path, conversation)


@pytest.mark.parametrize(
    ("flaw", "remedy"),
    [
        ({"version": "0.31.2"}, r"runs vLLM 0.31.2; supported is vLLM 0.32"),
        ({"version": "1.32.0"}, r"runs vLLM 1.32.0; supported is vLLM 0.32"),
        ({"version": "dev"}, r"runs vLLM dev; supported is vLLM 0.32"),
        ({"processed": False}, r"--logprobs-mode processed_logprobs"),
        ({"scale_out": False}, r"does not know /inference/v1/generate; start it with --tokens-only"),
        ({"dev": False}, r"does not know /pause; start it with the environment variable VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_with_what_to_do(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path, flaw: dict[str, Any], remedy: str
) -> None:
    for name, value in flaw.items():
        setattr(vllm, name, value)

    async def nothing(_: VllmSampler) -> None: ...

    with pytest.raises(UsageError, match=remedy):
        talk(model, vllm, tmp_path, nothing)


def test_a_diverged_model_is_an_error(model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        with torch.no_grad():
            vllm.model.get_output_embeddings().weight.fill_(torch.nan)
        vllm.script = lambda _: [40] * 12
        with pytest.raises(RetoolError, match="NaN or infinite"):
            await sampler.extend(None, PROMPT, params(), never, key=1)

    talk(model, vllm, tmp_path, conversation)


@pytest.mark.parametrize(
    ("settings", "found"), [({"temperature": 0.005}, "temperature=0.005"), ({"min_p": 0.1, "top_p": 0.9}, "min_p=0.1")]
)
def test_settings_that_vllm_takes_otherwise_are_refused(
    model: PreTrainedModel, vllm: SmallVllm, tmp_path: Path, settings: dict[str, float], found: str
) -> None:
    async def conversation(sampler: VllmSampler) -> None:
        with pytest.raises(UsageError, match=found):
            await sampler.extend(None, PROMPT, params(**settings), never, key=1)

    talk(model, vllm, tmp_path, conversation)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SamplerConfig(), "found neither"),
        (SamplerConfig(urls=("http://127.0.0.1:1",), vllm_python="python"), "found both"),
        (SamplerConfig(vllm_python="/no/such/python"), "'/no/such/python' is not a program"),
        (SamplerConfig(urls=("http://127.0.0.1:1",)), "http://127.0.0.1:1 is gone"),
        (SamplerConfig(urls=("http://127.0.0.1:1",), weights_folder="/no/such"), "'/no/such' is not a folder"),
    ],
)
def test_a_config_without_a_server_says_what_is_missing(
    model: PreTrainedModel, config: SamplerConfig, words: str
) -> None:
    async def opening() -> None:
        async with open_vllm(config, model, sequences=1, context=64):
            pass

    with pytest.raises(RetoolError, match=words):
        asyncio.run(opening())
