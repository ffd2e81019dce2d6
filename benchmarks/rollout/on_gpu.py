"""The engine on a GPU next to the memory bandwidth and to transformers' `generate` and `generate_batch`.

    benchmarks/gpu.sh rollout [--model PATH] [--rounds 3]
    benchmarks/gpu.sh rollout --device cpu      a smoke test: a tiny model with random weights, no figures worth keeping

Qwen2.5-Coder-0.5B in bf16, 256 trajectories of 1,024 tokens on prompts of 128 tokens, 8 trajectories a prompt. The
engine's trajectories stop three times, at places of their own, run code in the sandbox, and read a result of 32 tokens;
that of `generate` and `generate_batch` is 1,024 tokens in one go, which is easier. Nothing ends earlier. Prints what is
measured while it goes on, and as its last line a JSON object, medians over the rounds:
    tokens_per_second    sampled by the engine
    bandwidth_share      time of reading weights and KV cache at the bandwidth of a copy, over the time taken
    vs_generate, vs_generate_batch   tokens per second over theirs
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.generation import ContinuousBatchingConfig

from retool.config.sampling import SamplingConfig
from retool.config.schema import ModelConfig
from retool.learner.policy import load_policy
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, trajectory_key
from retool.sandbox import Sandbox
from rollout.decoding import endless, generate, never
from rollout.peer import say

CALLS, RESULT_TOKENS, SAMPLES = 3, 32, 8
CODE = "print(sum(number * number for number in range(1000)))"
SAMPLING = SamplingConfig()
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
MEMORY_OF_GENERATE_BATCH = 0.5  # of what is free: the cache of the engine stays where it is


@dataclass(frozen=True, slots=True)
class Workload:
    """Trajectories of fixed length. `parts[i]`: what trajectory i samples before each call and at the end."""

    prompts: list[list[int]]
    parts: list[list[int]]
    results: list[list[int]]
    tokens: int

    @property
    def sampled(self) -> int:
        return sum(map(sum, self.parts))

    def contexts(self) -> int:
        """Cached tokens that are looked at, summed over all sampled tokens."""
        seen = 0
        for prompt, parts in zip(self.prompts, self.parts, strict=True):
            context = len(prompt)
            for part in parts:
                seen += part * context + part * (part - 1) // 2
                context += part + RESULT_TOKENS
        return seen


def make_workload(trajectories: int, prompt_tokens: int, tokens: int, vocabulary: int) -> Workload:
    rng = np.random.default_rng(0)
    questions = rng.integers(0, vocabulary, (-(-trajectories // SAMPLES), prompt_tokens)).tolist()
    sampled = tokens - CALLS * RESULT_TOKENS
    parts = []
    for _ in range(trajectories):
        cuts = sorted(rng.choice(np.arange(1, sampled), CALLS, replace=False).tolist())
        parts.append([end - begin for begin, end in zip([0, *cuts], [*cuts, sampled], strict=True)])
    return Workload(
        [questions[number // SAMPLES] for number in range(trajectories)],
        parts,
        rng.integers(0, vocabulary, (CALLS, RESULT_TOKENS)).tolist(),
        tokens,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen/Qwen2.5-Coder-0.5B-Instruct", help="Hugging Face id or folder")
    parser.add_argument("--device", default="cuda", help="cuda (default), or cpu for the smoke test")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each comparison (default 3)")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.model, torch.device(options.device), options.rounds))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


async def measure(model: str, device: torch.device, rounds: int) -> dict[str, float]:
    smoke = device.type == "cpu"
    ours, theirs = [tiny_model() if smoke else load(model, device) for _ in range(2)]  # generate_batch changes its own
    vocabulary = ours.config.get_text_config().vocab_size
    work = make_workload(8, 16, 160, vocabulary) if smoke else make_workload(256, 128, 1024, vocabulary)
    capacity = len(work.prompts[0]) + work.tokens
    engine = Engine(ours, rows=len(work.prompts), capacity=capacity)
    bound = bound_seconds(ours, work, copy_bandwidth(device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    say(f"{name}, torch {torch.__version__}; {work.sampled} tokens, {bound:.2f} s at the bandwidth of a copy")
    seconds: dict[str, list[float]] = {"engine": [], "generate": [], "generate_batch": []}
    async with Sandbox() as box:
        for step in range(-1, rounds):  # the first is to warm up: kernels are compiled and graphs recorded
            await engine.update(step)
            took = {
                "engine": await roll_out(engine, box, work, step),
                "generate": generate(ours, work.prompts, work.tokens, SAMPLING, step + rounds),
                "generate_batch": generate_batch(theirs, work.prompts, work.tokens),
            }
            if step >= 0:
                say(", ".join(f"{system} {value:.2f} s" for system, value in took.items()))
                for system, value in took.items():
                    seconds[system].append(value)
    rates = [work.sampled / value for value in seconds["engine"]]
    whole = len(work.prompts) * work.tokens
    return {
        "tokens_per_second": median(rates),
        "bandwidth_share": median(bound / value for value in seconds["engine"]),
        "vs_generate": median(r * s / whole for r, s in zip(rates, seconds["generate"], strict=True)),
        "vs_generate_batch": median(r * s / whole for r, s in zip(rates, seconds["generate_batch"], strict=True)),
    }


def load(name: str, device: torch.device) -> PreTrainedModel:
    return load_policy(ModelConfig(path=name, dtype="bfloat16", device=str(device)))[0].eval()


def tiny_model() -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **TINY)).eval()


async def roll_out(engine: Engine, box: Sandbox, work: Workload, seed: int) -> float:
    """Seconds of the whole workload on the engine, code included."""

    async def one(number: int) -> None:
        key = trajectory_key(seed, number)
        handle, ids = None, work.prompts[number]
        for call, part in enumerate(work.parts[number]):
            segment = await engine.extend(handle, ids, SamplingParams(SAMPLING, part, frozenset()), never, key)
            handle = segment.handle
            if call < CALLS:
                await box.run(CODE, key=key + call)
                ids = work.results[call]
        engine.release(handle)

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(len(work.prompts))))
    return time.perf_counter() - began


def generate_batch(model: PreTrainedModel, prompts: Sequence[list[int]], new_tokens: int) -> float:
    """Seconds from the first start of a request to the last end: what it prepares for each call is left out."""
    config = ContinuousBatchingConfig(max_memory_percent=MEMORY_OF_GENERATE_BATCH)
    with endless(model, new_tokens, SAMPLING):
        outputs = model.generate_batch(list(prompts), continuous_batching_config=config)
    lengths = {len(output.generated_tokens) for output in outputs.values()}
    if len(outputs) != len(prompts) or lengths != {new_tokens}:
        raise SystemExit(f"generate_batch gave {len(outputs)} of {len(prompts)} answers, of {lengths} tokens")
    begins, ends = zip(*(output.lifespan for output in outputs.values()), strict=True)
    return max(ends) - min(begins)


def bound_seconds(model: PreTrainedModel, work: Workload, bandwidth: float) -> float:
    """Seconds of reading all weights once a step, of all trajectories together, and of every token its context."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if not model.config.get_text_config().tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.nbytes  # of which a step reads a few rows
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size * model.dtype.itemsize
    return (work.sampled / len(work.prompts) * weights + work.contexts() * token) / bandwidth


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by copies of a large tensor, the best of ten."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(times)


if __name__ == "__main__":
    main()
