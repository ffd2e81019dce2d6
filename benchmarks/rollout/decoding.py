"""Decoding without tools: the engine next to transformers' `generate`, and one step of the nano preset's model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from statistics import median

import torch
from transformers import GenerationConfig, PreTrainedModel

from retool.config.load import load_config
from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.learner.policy import create_model
from retool.learner.tokenizer import train_tokenizer
from retool.puzzles.generate import split
from retool.sampling.engine import Engine
from retool.sampling.sampler import Sampler, SamplingParams, StopFunction, trajectory_key
from rollout.peer import say

ROWS, PROMPT_TOKENS, NEW_TOKENS = 64, 32, 96
NANO_CONTEXT, NANO_STEPS = 128, 32


def never(_: Sequence[int]) -> bool:
    return False


def equally_long(texts: Iterable[list[int]]) -> list[list[int]]:
    """The first `PROMPT_TOKENS` ids of the first `ROWS` texts that have as many, so that `generate` pads nothing."""
    return list(islice((ids[:PROMPT_TOKENS] for ids in texts if len(ids) >= PROMPT_TOKENS), ROWS))


async def decode(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    stops: Sequence[StopFunction] | None = None,
) -> float:
    """Seconds for `new_tokens` tokens behind each prompt, prompts included; nothing ends earlier."""
    params = SamplingParams(sampling, new_tokens, frozenset())

    async def one(row: int, prompt: Sequence[int]) -> None:
        stop = stops[row] if stops else never
        sampler.release((await sampler.extend(None, prompt, params, stop, trajectory_key(seed, row))).handle)

    began = time.perf_counter()
    await asyncio.gather(*(one(row, prompt) for row, prompt in enumerate(prompts)))
    return time.perf_counter() - began


def generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int, sampling: SamplingConfig, seed: int
) -> float:
    """The same by `generate`, for prompts of one length: no padding, no end of sequence."""
    ids_RQ = torch.tensor(prompts, device=model.device)
    torch.manual_seed(seed)
    began = time.perf_counter()
    with torch.inference_mode(), endless(model, new_tokens, sampling):
        out_RS = model.generate(ids_RQ, attention_mask=torch.ones_like(ids_RQ))
    seconds = time.perf_counter() - began
    if out_RS.shape[1] != ids_RQ.shape[1] + new_tokens:
        raise SystemExit(f"generate stopped after {out_RS.shape[1] - ids_RQ.shape[1]} of {new_tokens} tokens")
    return seconds


@contextmanager
def endless(model: PreTrainedModel, new_tokens: int, sampling: SamplingConfig) -> Iterator[None]:
    """`generate` samples as the engine does and finds no end. As an argument the config would be completed from the
    model's own, which knows an end."""
    own, model.generation_config = (
        model.generation_config,
        GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            pad_token_id=0,
        ),
    )
    try:
        yield
    finally:
        model.generation_config = own


async def over_generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], top_p: float, rounds: int) -> float:
    """Tokens per second of the engine over those of `generate`."""
    sampling = SamplingConfig(top_p=top_p)
    engine = Engine(model, rows=ROWS, capacity=PROMPT_TOKENS + NEW_TOKENS)
    ratios = []
    for step in range(-1, rounds):  # the first is to warm up
        new_tokens = NEW_TOKENS if step >= 0 else 4
        await engine.update(step)  # forgets the prompts
        engine.take_stats()
        ours = await decode(engine, prompts, new_tokens, sampling, step)
        prefill = engine.take_stats()["prefill_seconds"]
        theirs = generate(model, prompts, new_tokens, sampling, step + rounds)
        if step >= 0:
            tokens = len(prompts) * new_tokens
            say(
                f"top-p {top_p}: engine {tokens / ours:.0f} tokens/s, of its {ours:.1f} s {prefill:.1f} s for prompts; "
                f"generate {tokens / theirs:.0f} tokens/s"
            )
            ratios.append(theirs / ours)
    say(f"top-p {top_p}: {median(ratios):.2f} times generate")
    return median(ratios)


async def nano_step_ms(rounds: int, deterministic: bool) -> float:
    """Median milliseconds of a decode step with sampling: `ROWS` rows whose context grows past `NANO_CONTEXT`."""
    config = load_config(Config, "nano")
    problems = [problem for problem, _ in split(500, 1, config.seed)[0]]
    tokenizer = train_tokenizer((problem.text for problem in problems), config.model.vocabulary)
    model = create_model(config.model, tokenizer, config.seed)
    prompt_tokens = NANO_CONTEXT - NANO_STEPS // 2
    engine = Engine(model, rows=ROWS, capacity=prompt_tokens + NANO_STEPS, deterministic=deterministic)
    generator = torch.Generator().manual_seed(config.seed)
    prompts = torch.randint(0, len(tokenizer), (ROWS, prompt_tokens), generator=generator).tolist()
    steps: list[float] = []
    for step in range(-1, rounds):
        stamps: list[list[float]] = [[] for _ in prompts]

        def watch(row: list[float]) -> StopFunction:
            return lambda _: row.append(time.perf_counter()) or False

        await engine.update(step)
        await decode(engine, prompts, NANO_STEPS, config.sampling, step, [watch(row) for row in stamps])
        last = max(stamps, key=lambda row: row[0])  # from its first token on all rows decode
        if step >= 0:
            steps += [1000 * (after - before) for before, after in pairwise(last)]
    return median(steps)
