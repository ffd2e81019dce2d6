"""The measured half: one-thread engines as processes of their own, on trajectories whose lengths are known beforehand.

Nothing ends a turn but its planned length, so that one and two samplers, and the simulation, do the same work.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

from retool.config.load import load_config
from retool.config.sampling import SamplingConfig
from retool.config.schema import Config
from retool.learner.policy import create_model
from retool.learner.tokenizer import train_tokenizer
from retool.puzzles.generate import split
from retool.sampling.cache import row_bytes
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams
from scaling.workload import Turns

ROWS, CAPACITY = 64, 256
_FEW_ROWS, _ROUNDS = 8, 5


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """Seconds of a decode step of one engine, from two numbers of rows; what the cache adds is within them."""

    overhead: float
    row_seconds: float
    token_seconds: float = 0.0

    def fixed(self, rows: float) -> float:
        return self.overhead + self.row_seconds * rows


def make_engine() -> Engine:
    """An engine on the nano preset's architecture with random weights, on one thread. It holds twice as many
    trajectories as decode at a time; of more that wait for tools it reads some again, which is not simulated."""
    torch.set_num_threads(1)
    config = load_config(Config, "nano")
    texts = (problem.text for problem, _ in split(500, 1, 0)[0])
    model = create_model(config.model, train_tokenizer(texts, config.model.vocabulary), 0)
    budget = 2 * ROWS * row_bytes(model.config, CAPACITY, model.dtype)
    return Engine(model, rows=ROWS, capacity=CAPACITY, cache_bytes=budget)


async def roll_out(engine: Engine, turns: Turns, key: int) -> None:
    """One trajectory: write a turn of its planned length, wait for the tool, read its result, go on."""
    handle, words = None, random.Random(key)
    for turn in turns:
        params = SamplingParams(SamplingConfig(), turn.tokens, frozenset())
        read = [words.randrange(10, 300) for _ in range(turn.new_tokens)]
        segment = await engine.extend(handle, read, params, lambda _: False, key)
        handle = segment.handle
        if turn.tool_seconds is not None:
            await asyncio.sleep(turn.tool_seconds)
    engine.release(handle)


def roll_out_all(engine: Engine, trajectories: Sequence[Turns]) -> float:
    """Seconds until all are complete."""

    async def together() -> None:
        await engine.update(0)  # forgets the prompts
        await asyncio.gather(*(roll_out(engine, turns, key) for key, turns in enumerate(trajectories)))

    began = time.perf_counter()
    asyncio.run(together())
    return time.perf_counter() - began


def _sample(index: int, parts: list[list[list[Turns]]], barrier: Barrier, results: Queue) -> None:
    """One process: its part of each batch, with all processes in step at the barrier."""
    engine = make_engine()
    roll_out_all(engine, parts[index][0][:ROWS])  # warm up
    seconds = 0.0
    for trajectories in parts[index]:
        barrier.wait()
        began = time.perf_counter()
        roll_out_all(engine, trajectories)
        barrier.wait()
        seconds += time.perf_counter() - began
    results.put(seconds)


def measure(samplers: int, batches: Sequence[Sequence[Turns]]) -> float:
    """Seconds for all batches, one after the other, shared by `samplers` processes."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(samplers), context.Queue()
    parts = [[list(each[index::samplers]) for each in batches] for index in range(samplers)]
    processes = [context.Process(target=_sample, args=(i, parts, barrier, results)) for i in range(samplers)]
    for process in processes:
        process.start()
    seconds = max(results.get(timeout=3600) for _ in processes)
    for process in processes:
        process.join()
    return seconds


def calibrate(turns: Sequence[Turns]) -> tuple[MeasuredStep, float]:
    """Seconds of a step of one engine by its rows, and of a token that is read, on the workload itself: a few
    trajectories at a time and many, in turns, with tools that take no time. Medians."""
    engine = make_engine()
    instant = [tuple(replace(turn, tool_seconds=turn.tool_seconds and 0.0) for turn in each) for each in turns]
    roll_out_all(engine, instant[:ROWS])  # warm up
    found = [[_counters(engine, instant, size) for size in (_FEW_ROWS, len(instant))] for _ in range(_ROUNDS)]
    (few_rows, few), (many_rows, many) = (
        (
            statistics.median(each["row_steps"] / each["decode_steps"] for each in column),
            statistics.median(each["decode_seconds"] / each["decode_steps"] for each in column),
        )
        for column in zip(*found, strict=True)
    )
    row = (many - few) / (many_rows - few_rows)
    read = statistics.median(each["prefill_seconds"] / each["prefilled_tokens"] for _, each in found)
    return MeasuredStep(few - row * few_rows, row), read


def _counters(engine: Engine, turns: Sequence[Turns], size: int) -> dict[str, float]:
    """Of the engine, over the trajectories taken `size` at a time."""
    engine.take_stats()
    for begin in range(0, len(turns), size):
        roll_out_all(engine, turns[begin : begin + size])
    return engine.take_stats()
