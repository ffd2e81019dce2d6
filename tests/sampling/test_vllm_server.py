"""The vLLM sampler against vLLM itself, with transformers as the oracle.

Needs the python of an environment with vLLM, named by RETOOL_VLLM_PYTHON (`make test-vllm`). The model is a tiny one
with random weights whose output head is its embedding.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import SamplerConfig
from retool.sampling.choose import transform_logits
from retool.sampling.sampler import SamplingParams
from retool.sampling.vllm import VllmSampler, open_vllm

PYTHON = os.environ.get("RETOOL_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PYTHON is None, reason="RETOOL_VLLM_PYTHON is not set: the python of an environment with vLLM"),
]
PROMPT = list(range(100, 180))
CLOSE = 1e-3  # in fp32, of log-probabilities around -6
Served = tuple[Callable[[Coroutine[Any, Any, Any]], Any], VllmSampler]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def served(model: PreTrainedModel) -> Iterator[Served]:
    """What runs a coroutine on the sampler's event loop, and the sampler. One server for all tests of this file."""
    config = SamplerConfig(vllm_python=PYTHON, vllm_args=("--enforce-eager",))
    opened = open_vllm(config, model, sequences=8, context=4000)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name in ("VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS"):
            if name not in os.environ:
                patch.setenv(name, "1")
        yield runner.run, runner.run(opened.__aenter__())
        runner.run(opened.__aexit__(None, None, None))


def params(max_tokens: int = 40, forbid: Any = None, **sampling: float) -> SamplingParams:
    return SamplingParams(SamplingConfig(**sampling), max_tokens, frozenset(), forbid)


def never(_: Sequence[int]) -> bool:
    return False


def oracle(model: PreTrainedModel, ids: Sequence[int], last: int, **sampling: float) -> list[float]:
    """Log-probabilities of the `last` ids by transformers and the learner's own transformation."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([list(ids)]), use_cache=False).logits[0, -last - 1 : -1]
    logprobs_TV = transform_logits(logits_TV, SamplingConfig(**sampling)).log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(ids[-last:])[:, None])[:, 0].tolist()


def test_log_probs_are_those_of_transformers_across_a_spliced_result(served: Served, model: PreTrainedModel) -> None:
    run, sampler = served
    first = run(sampler.extend(None, PROMPT, params(), never, key=1))
    assert first.logprobs == pytest.approx(oracle(model, [*PROMPT, *first.ids], 40), abs=CLOSE)
    second = run(sampler.extend(first.handle, [7, 8, 9], params(), never, key=1))
    assert second.handle.ids == [*PROMPT, *first.ids, 7, 8, 9, *second.ids]
    assert second.logprobs == pytest.approx(oracle(model, second.handle.ids, 40), abs=CLOSE)


@pytest.mark.parametrize("settings", [{"temperature": 0.7, "top_p": 0.8}, {"top_k": 20}, {"min_p": 0.05}])
def test_settings_of_sampling_are_in_the_log_probs_and_not_in_the_models_own(
    served: Served, model: PreTrainedModel, settings: dict[str, float]
) -> None:
    run, sampler = served
    segment = run(sampler.extend(None, PROMPT, params(**settings), never, key=2))
    assert segment.logprobs == pytest.approx(oracle(model, segment.handle.ids, 40, **settings), abs=CLOSE)
    assert segment.model_logprobs == pytest.approx(oracle(model, segment.handle.ids, 40), abs=CLOSE)


def test_greedy_tokens_are_the_most_probable_ones(served: Served, model: PreTrainedModel) -> None:
    run, sampler = served
    segment = run(sampler.extend(None, PROMPT, params(temperature=0.0), never, key=2))
    assert segment.logprobs == [0.0] * 40 == oracle(model, segment.handle.ids, 40, temperature=0.0)
    assert segment.model_logprobs == pytest.approx(oracle(model, segment.handle.ids, 40), abs=CLOSE)


def test_what_is_forbidden_may_depend_on_what_was_sampled(served: Served, model: PreTrainedModel) -> None:
    run, sampler = served
    low = list(range(256))
    forbid = lambda out: low if len(out) % 5 == 4 else []  # noqa: E731
    segment = run(sampler.extend(None, PROMPT, params(forbid=forbid), never, key=3))
    assert all(token >= 256 for token in segment.ids[4::5]) and any(token < 256 for token in segment.ids)
    with torch.no_grad():
        logits_TV = model(torch.tensor([segment.handle.ids])).logits[0, -41:-1]
    logits_TV[4::5, :256] = -torch.inf
    plain = logits_TV.log_softmax(-1).gather(-1, torch.tensor(segment.ids)[:, None])[:, 0].tolist()
    assert segment.logprobs == pytest.approx(plain, abs=CLOSE)
    assert segment.model_logprobs == pytest.approx(oracle(model, segment.handle.ids, 40), abs=CLOSE)


def test_trajectories_of_one_prompt_differ(served: Served) -> None:
    run, sampler = served

    async def together(keys: Sequence[int]) -> list[list[int]]:
        segments = await asyncio.gather(*(sampler.extend(None, PROMPT, params(), never, key) for key in keys))
        return [segment.ids for segment in segments]

    others = run(together([4, 5, 6, 7]))
    assert len({tuple(ids) for ids in others}) == 4


def test_a_stop_ends_the_request_on_the_server_too(served: Served) -> None:
    run, sampler = served
    segment = run(sampler.extend(None, PROMPT, params(3500), lambda out: len(out) == 3, key=8))
    assert (len(segment.ids), segment.stop) == (3, "stop")

    async def until_idle() -> int:
        """Tokens that the server has sampled when nothing runs there any more."""
        while _metric(sampler, "num_requests_running"):
            await asyncio.sleep(0.05)
        return _metric(sampler, "generation_tokens_total")

    before = run(until_idle())
    run(sampler.extend(None, PROMPT, params(3500), lambda out: len(out) == 3, key=9))
    assert run(until_idle()) - before < 1750  # this model writes a thousand a second


def test_an_update_brings_all_of_the_learners_weights(served: Served, model: PreTrainedModel) -> None:
    run, sampler = served
    before = run(sampler.extend(None, PROMPT, params(), never, key=10))
    for version in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        run(sampler.update(version, model.named_parameters()))
        after = run(sampler.extend(before.handle, [7, 8], params(), never, key=10))
        anew = run(sampler.extend(None, PROMPT, params(), never, key=10))
        assert (after.version, anew.version) == (version, version)
        for segment in (after, anew):
            assert segment.logprobs == pytest.approx(oracle(model, segment.handle.ids, 40), abs=CLOSE)
        assert anew.logprobs != pytest.approx(before.logprobs, abs=0.1)


def _metric(sampler: VllmSampler, name: str) -> int:
    with urlopen(f"{sampler.urls[0]}/metrics") as response:
        found = re.findall(rf"^vllm:{name}{{.*}} (\S+)$", response.read().decode(), re.MULTILINE)
    return round(sum(map(float, found)))
