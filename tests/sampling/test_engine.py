"""The in-process engine against transformers itself, and against itself in other company."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
import torch
from transformers import PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.errors import RetoolError, UsageError
from retool.sampling.engine import Engine, EngineStats
from retool.sampling.sampler import SamplingParams, Segment, trajectory_key
from small_models import VOCABULARY, make_model


def recorded_and_plain(model: PreTrainedModel, turns: list[tuple[list[int], Segment]]) -> tuple[torch.Tensor, ...]:
    """Of one trajectory, as (what was given, what followed): the stored log-probs, and those of one forward pass."""
    ids, positions = [], []
    for given, segment in turns:
        positions += range(len(ids) + len(given), len(ids) + len(given) + len(segment.ids))
        ids += [*given, *segment.ids]
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    plain = torch.stack([logprobs[position - 1, ids[position]] for position in positions])
    return torch.tensor([value for _, segment in turns for value in segment.logprobs]), plain


def params(max_tokens: int = 24, temperature: float = 1.0, **extra: object) -> SamplingParams:
    return SamplingParams(SamplingConfig(temperature=temperature), max_tokens, frozenset(), **extra)


def never(_: Sequence[int]) -> bool:
    return False


async def two_turns(engine: Engine, prompt: list[int], key: int, delay: float = 0.0, **how: float) -> list[Segment]:
    """A prompt, a stretch of tokens, a spliced result, another stretch."""
    first = await engine.extend(None, prompt, params(**how), never, key)
    await asyncio.sleep(delay)
    second = await engine.extend(first.handle, RESULT, params(**how), never, key)
    engine.release(second.handle)
    return [first, second]


RESULT = [5, 6, 7, 8]
PROMPTS = [list(range(1, 2 + 5 * n)) for n in range(1, 5)]


@pytest.mark.parametrize(
    "model_type",
    [
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "smollm3",
        "olmo2",
        "gemma3_text",
        "mixtral",
        "gpt_neox",
        "gpt2",
        "phi",
        "gemma2",
    ],
)
def test_greedy_tokens_are_those_of_generate(model_type: str) -> None:
    model = make_model(model_type)
    engine = Engine(model, rows=3, capacity=80, prefill_chunk=8)

    async def main() -> list[Segment]:
        return await asyncio.gather(*(engine.extend(None, p, params(temperature=0.0), never, 0) for p in PROMPTS[:3]))

    for prompt, segment in zip(PROMPTS, asyncio.run(main()), strict=False):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :]
        assert segment.ids == expected.tolist()


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("model_type", "layers"),
    [("mistral", None), ("qwen2", 1), ("gemma3_text", ["sliding_attention", "full_attention"]), ("gemma2", None)],
)
def test_a_sliding_window_shorter_than_the_text_hides_what_is_behind_it(
    model_type: str, layers: object, deterministic: bool
) -> None:
    extra = {"layer_types": layers} if isinstance(layers, list) else {}
    if model_type == "qwen2":
        extra = {"use_sliding_window": True, "max_window_layers": layers}
    model = make_model(model_type, sliding_window=7, **extra)
    engine = Engine(model, rows=3, capacity=100, prefill_chunk=8, deterministic=deterministic)

    async def main() -> list[list[Segment]]:
        return await asyncio.gather(*(two_turns(engine, p, key) for key, p in enumerate(PROMPTS)))

    for prompt, (first, second) in zip(PROMPTS, asyncio.run(main()), strict=True):
        torch.testing.assert_close(*recorded_and_plain(model, [(prompt, first), (RESULT, second)]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("deterministic", [True, False])
def test_recorded_log_probabilities_are_those_of_a_plain_forward_pass(deterministic: bool) -> None:
    model = make_model("llama")
    engine = Engine(model, rows=3, capacity=100, prefill_chunk=8, deterministic=deterministic)

    async def main() -> list[list[Segment]]:
        return await asyncio.gather(*(two_turns(engine, p, key) for key, p in enumerate(PROMPTS)))

    for prompt, (first, second) in zip(PROMPTS, asyncio.run(main()), strict=True):
        torch.testing.assert_close(*recorded_and_plain(model, [(prompt, first), (RESULT, second)]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_kind_of_attention_looks_at_what_it_must_not(attention: str) -> None:
    """Eager attention adds the mask to the scores and takes no booleans: a mask of 0 and 1 would hide nothing."""
    model = make_model("qwen3")
    model.set_attn_implementation(attention)
    engine = Engine(model, rows=3, capacity=100)

    async def main() -> list[list[Segment]]:
        return await asyncio.gather(*(two_turns(engine, p, key) for key, p in enumerate(PROMPTS)))

    for prompt, (first, second) in zip(PROMPTS, asyncio.run(main()), strict=True):
        torch.testing.assert_close(*recorded_and_plain(model, [(prompt, first), (RESULT, second)]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize(("rows", "capacity"), [(4, 95), (7, 100)])  # rows off the lines of memory, rows left over
@pytest.mark.parametrize(("model_type", "key_heads"), [("qwen2", 1), ("qwen2", 2), ("gpt2", 4), ("gemma3_text", 2)])
def test_in_deterministic_mode_a_trajectory_does_not_depend_on_its_company_or_its_row(
    model_type: str, key_heads: int, rows: int, capacity: int, threads: None
) -> None:
    heads = {} if model_type == "gpt2" else {"num_attention_heads": 2 * key_heads, "num_key_value_heads": key_heads}
    model = make_model(model_type, initializer_range=0.3, **heads)  # weights so large that the last bit shows
    found: list[dict[int, list[tuple[list[int], list[float]]]]] = []
    for attempt in range(3):
        engine = Engine(model, rows=rows, capacity=capacity, deterministic=True)
        rng = random.Random(attempt)
        order = rng.sample(range(8), 8 if attempt < 2 else 5)

        async def main(engine: Engine = engine, rng: random.Random = rng, order: list[int] = order) -> dict:
            jobs = (two_turns(engine, PROMPTS[key % 4], key, rng.random() / 100) for key in order)
            return dict(zip(order, await asyncio.gather(*jobs), strict=True))

        turns = asyncio.run(main())
        found.append({key: [(s.ids, s.logprobs) for s in segments] for key, segments in turns.items()})
    for key, segments in found[2].items():
        assert found[0][key] == found[1][key] == segments


def test_a_groups_prompt_is_computed_once_and_a_result_costs_its_own_tokens_only() -> None:
    engine = Engine(make_model("llama"), rows=4, capacity=100)
    prompt = PROMPTS[3]

    async def main() -> None:
        await asyncio.gather(*(two_turns(engine, prompt, key) for key in range(4)))

    asyncio.run(main())
    stats = EngineStats(**engine.take_stats())
    assert stats.prefilled_tokens == len(prompt) - 1
    assert stats.reused_tokens == 3 * (len(prompt) - 1)
    assert stats.fed_tokens == 4 * len(RESULT)  # the last sampled token, and all of the result but its last
    assert stats.sampled_tokens == 4 * 2 * 24


def test_a_long_result_is_read_in_chunks_and_nothing_before_it_again() -> None:
    model = make_model("llama")
    engine = Engine(model, rows=2, capacity=160, prefill_chunk=8)
    result = [n % VOCABULARY for n in range(50, 87)]

    async def main() -> list[Segment]:
        first = await engine.extend(None, PROMPTS[0], params(), never, 0)
        engine.take_stats()
        return [first, await engine.extend(first.handle, result, params(), never, 0)]

    first, second = asyncio.run(main())
    stats = EngineStats(**engine.take_stats())
    assert (stats.prefilled_tokens, stats.fed_tokens) == (len(result), 0)  # and the last token before it, less its own
    torch.testing.assert_close(*recorded_and_plain(model, [(PROMPTS[0], first), (result, second)]), atol=1e-5, rtol=0)


def test_after_an_update_prompts_are_computed_anew_and_segments_carry_the_version() -> None:
    model = make_model("llama")
    engine = Engine(model, rows=1, capacity=80)
    for version in (0, 1):
        segment = asyncio.run(engine.extend(None, PROMPTS[3], params(), never, 0))
        engine.release(segment.handle)
        assert segment.version == version
        torch.testing.assert_close(*recorded_and_plain(model, [(PROMPTS[3], segment)]), atol=1e-5, rtol=0)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.5)
        asyncio.run(engine.update(version + 1))
    assert engine.take_stats()["reused_tokens"] == 0


def test_sampling_is_without_dropout_though_the_learner_trains_with_it() -> None:
    model = make_model("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    engine = Engine(model, rows=1, capacity=80)
    model.train()
    segment = asyncio.run(engine.extend(None, PROMPTS[1], params(), never, 0))
    torch.testing.assert_close(*recorded_and_plain(model.eval(), [(PROMPTS[1], segment)]), atol=1e-5, rtol=0)


def test_more_trajectories_than_rows_take_turns() -> None:
    engine = Engine(make_model("llama"), rows=2, capacity=80)

    async def main() -> list[list[Segment]]:
        return await asyncio.gather(*(two_turns(engine, PROMPTS[0], key) for key in range(9)))

    assert len({tuple(first.ids) for first, _ in asyncio.run(main())}) == 9


@pytest.mark.parametrize("result", [RESULT, list(range(40, 70))])
def test_a_trajectory_that_lost_its_row_to_another_goes_on_as_if_nothing_had_happened(result: list[int]) -> None:
    model = make_model("llama")

    async def main(engine: Engine, delay: float) -> list[tuple[list[int], list[float]]]:
        async def one(key: int) -> list[Segment]:
            first = await engine.extend(None, PROMPTS[2], params(), never, key)
            await asyncio.sleep(delay)
            second = await engine.extend(first.handle, result, params(), never, key)
            engine.release(second.handle)
            return [first, second]

        return await asyncio.gather(*map(one, range(5)))

    roomy, narrow = Engine(model, rows=5, capacity=120), Engine(model, rows=2, capacity=120, prefill_chunk=8)
    for at_ease, hurried in zip(asyncio.run(main(roomy, 0.0)), asyncio.run(main(narrow, 0.3)), strict=True):
        assert [segment.ids for segment in at_ease] == [segment.ids for segment in hurried]
        given = [(PROMPTS[2], hurried[0]), (result, hurried[1])]
        torch.testing.assert_close(*recorded_and_plain(model, given), atol=1e-5, rtol=0)
    assert EngineStats(**roomy.take_stats()).recomputed_tokens == 0
    assert EngineStats(**narrow.take_stats()).recomputed_tokens > 0


def test_a_budget_in_bytes_bounds_the_rows() -> None:
    model = make_model("llama")
    row = 2 * 2 * 2 * 96 * 8 * 4  # keys and values, layers, heads, cells (80 and a scratch, rounded), head size, bytes
    for rows_that_fit, expected in [(1, 1), (3, 3), (5, 4)]:
        engine = Engine(model, rows=2, capacity=80, cache_bytes=rows_that_fit * row + row // 2)
        assert engine._runner.cache.keys_LRHSD.nbytes + engine._runner.cache.values_LRHSD.nbytes == expected * row
    with pytest.raises(UsageError, match=r"do not fit into the 0 MiB of rollout\.cache_mib"):
        Engine(model, rows=2, capacity=80, cache_bytes=row - 1)
    with pytest.raises(UsageError, match=r"lower rollout\.rows or rollout\.max_tokens"):
        Engine(model, rows=2, capacity=80, cache_bytes=row, deterministic=True)


@pytest.mark.parametrize("how", [{"temperature": 0.7, "top_p": 0.9}, {"top_p": 0.9}, {"top_k": 2 * VOCABULARY}])
def test_log_probabilities_of_the_model_itself_are_kept_beside_those_of_what_was_sampled_from(
    how: dict[str, float],
) -> None:
    model = make_model("llama")
    engine = Engine(model, rows=2, capacity=80)
    config = SamplingConfig(**how)
    segment = asyncio.run(engine.extend(None, PROMPTS[1], SamplingParams(config, 24, frozenset()), never, 0))
    _, plain = recorded_and_plain(model, [(PROMPTS[1], segment)])
    torch.testing.assert_close(torch.tensor(segment.model_logprobs), plain, atol=1e-5, rtol=0)
    moved = max(abs(a - b) for a, b in zip(segment.logprobs, segment.model_logprobs, strict=True))
    assert moved < 1e-5 if "top_k" in how else moved > 0.01


def test_nothing_is_computed_while_every_row_waits_for_its_tool() -> None:
    engine = Engine(make_model("llama"), rows=1, capacity=80, deterministic=True)

    async def main() -> tuple[float, list[Segment]]:
        first = await engine.extend(None, PROMPTS[0], params(), never, 0)
        waiting = asyncio.create_task(engine.extend(None, PROMPTS[0], params(), never, 1))
        began = time.process_time()
        await asyncio.sleep(0.3)
        used = time.process_time() - began
        engine.release(first.handle)
        return used, [first, await asyncio.wait_for(waiting, 20)]

    used, segments = asyncio.run(main())
    assert used < 0.15
    assert [len(segment.ids) for segment in segments] == [24, 24]


def test_a_forbidden_token_is_never_sampled_and_the_others_share_its_probability() -> None:
    model = make_model("llama")
    engine = Engine(model, rows=2, capacity=80)
    banned = list(range(0, VOCABULARY, 2))
    segment = asyncio.run(engine.extend(None, PROMPTS[0], params(forbid=lambda _: banned), never, 1))
    assert all(token % 2 for token in segment.ids)
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].clone()
        logits[banned] = -torch.inf
        assert abs(float(logits.log_softmax(-1)[segment.ids[0]]) - segment.logprobs[0]) < 1e-5


def test_what_is_forbidden_to_one_now_and_then_changes_nothing_that_is_recorded_of_another() -> None:
    model = make_model("llama")
    plain = asyncio.run(Engine(model, rows=2, capacity=80).extend(None, PROMPTS[0], params(), never, 1))

    async def main(engine: Engine) -> list[Segment]:
        now_and_then = params(forbid=lambda out: [5, 6] if len(out) % 3 == 0 else [])
        ways = [(1, params()), (2, now_and_then)]
        return await asyncio.gather(*(engine.extend(None, PROMPTS[0], way, never, key) for key, way in ways))

    free, held_back = asyncio.run(main(Engine(model, rows=2, capacity=80)))
    assert free.ids == plain.ids and free.model_logprobs is free.logprobs
    assert plain.model_logprobs is plain.logprobs
    _, expected = recorded_and_plain(model, [(PROMPTS[0], held_back)])
    torch.testing.assert_close(torch.tensor(held_back.model_logprobs), expected, atol=1e-5, rtol=0)


def test_the_end_of_sequence_and_the_stop_function_end_a_segment() -> None:
    engine = Engine(make_model("llama"), rows=1, capacity=80)
    free = asyncio.run(engine.extend(None, PROMPTS[0], params(), never, 3))
    engine.release(free.handle)
    eos = SamplingParams(SamplingConfig(), 24, frozenset({free.ids[4]}))
    ended = asyncio.run(engine.extend(None, PROMPTS[0], eos, never, 3))
    engine.release(ended.handle)
    assert (ended.stop, ended.ids) == ("eos", free.ids[: free.ids.index(free.ids[4]) + 1])
    stopped = asyncio.run(engine.extend(None, PROMPTS[0], params(), lambda ids: len(ids) == 3, 3))
    assert (stopped.stop, stopped.ids) == ("stop", free.ids[:3])


def test_what_does_not_fit_into_a_row_is_an_error() -> None:
    engine = Engine(make_model("llama"), rows=1, capacity=20)
    with pytest.raises(RetoolError, match="do not fit into a row of 20 tokens"):
        asyncio.run(engine.extend(None, PROMPTS[0], params(max_tokens=20), never, 0))


def test_a_cancelled_trajectory_gives_its_row_back() -> None:
    engine = Engine(make_model("llama"), rows=1, capacity=80)

    async def main() -> Segment:
        waiting = asyncio.create_task(engine.extend(None, PROMPTS[0], params(), never, 0))
        await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return await asyncio.wait_for(engine.extend(None, PROMPTS[0], params(), never, 1), 20)

    assert len(asyncio.run(main()).ids) == 24


def test_a_row_is_given_back_once_when_a_later_segment_is_cancelled() -> None:
    engine = Engine(make_model("llama"), rows=2, capacity=100)

    async def main() -> list[Segment]:
        first = await engine.extend(None, PROMPTS[0], params(), never, 0)
        going_on = asyncio.create_task(engine.extend(first.handle, RESULT, params(), never, 0))
        await asyncio.sleep(0.005)
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
        engine.release(first.handle)
        return await asyncio.gather(*(engine.extend(None, PROMPTS[0], params(), never, key) for key in (1, 2)))

    assert len({segment.handle.index for segment in asyncio.run(main())}) == 2


def test_an_error_in_the_model_reaches_everyone_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(make_model("llama"), rows=2, capacity=80)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, "forward", broken)

    async def main() -> list[object]:
        jobs = (engine.extend(None, PROMPTS[0], params(), never, key) for key in range(3))
        return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 20)

    assert [str(error) for error in asyncio.run(main())] == ["out of memory"] * 3
    monkeypatch.undo()

    async def again() -> list[Segment]:
        return await asyncio.gather(*(engine.extend(None, PROMPTS[0], params(), never, key) for key in range(2)))

    segments = asyncio.run(asyncio.wait_for(again(), 20))
    assert {segment.handle.index for segment in segments} == {0, 1}  # every row came back, once


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error_and_never_sampled(temperature: float, broken: float) -> None:
    model = make_model("llama")
    engine = Engine(model, rows=2, capacity=80)
    with torch.no_grad():
        model.lm_head.weight[3] = broken

    async def main() -> list[object]:
        jobs = (engine.extend(None, PROMPTS[0], params(temperature=temperature), never, key) for key in range(3))
        return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 20)

    for error in asyncio.run(main()):
        assert isinstance(error, RetoolError) and "logits are NaN or infinite" in str(error)
    with pytest.raises(RetoolError, match="logits are NaN or infinite"):
        Engine(model, rows=2, capacity=80)


def test_a_trajectorys_key_is_the_same_on_every_machine() -> None:
    assert trajectory_key(0, "ReTool/1/p/0") == trajectory_key(0, "ReTool/1/p/0") != trajectory_key(1, "ReTool/1/p/0")
    assert trajectory_key("a", "b") != trajectory_key("ab")


def test_who_comes_back_to_its_row_does_not_wait_until_somebody_loses_his() -> None:
    engine = Engine(make_model("llama"), rows=1, capacity=100)
    engine._seconds_per_token = 10.0  # reading again takes so long that nobody loses a row during this test

    async def main() -> Segment:
        first = await engine.extend(None, PROMPTS[0], params(), never, 0)
        engine._seconds_per_token = 10.0
        waiting = asyncio.create_task(engine.extend(None, PROMPTS[1], params(), never, 1))
        await asyncio.sleep(0.05)
        second = await asyncio.wait_for(engine.extend(first.handle, RESULT, params(), never, 0), 20)
        engine.release(second.handle)
        return await asyncio.wait_for(waiting, 20)

    assert len(asyncio.run(main()).ids) == 24


def test_a_result_gets_from_a_thread_through_its_tasks_to_its_row_between_two_steps() -> None:
    """On a large model a step takes a second: to wait for one at each hop would cost a trajectory several a call."""
    engine, ends = Engine(make_model("llama"), rows=2, capacity=200), []
    engine.on_phase = lambda *_: ends.append(None)

    async def call() -> None:
        result = Future()
        asyncio.get_running_loop().call_soon(result.set_result, None)
        await asyncio.wrap_future(result)

    async def main() -> int:
        other = asyncio.create_task(engine.extend(None, PROMPTS[0], params(150), never, 0))
        first = await engine.extend(None, PROMPTS[1], params(), never, 1)
        before = len(ends)
        async with asyncio.TaskGroup() as group:
            group.create_task(call())
        steps = len(ends) - before
        await engine.extend(first.handle, RESULT, params(), never, 1)
        assert not other.done()
        await other
        return steps

    assert asyncio.run(main()) == 0
