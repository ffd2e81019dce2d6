"""Causal attention of rows of sequences, forward and backward: PyTorch's fused kernel one by one next to our own.

    python benchmarks/learner/attention.py [--threads N] [--rounds 7]

Prints milliseconds, medians of alternating calls: first the sequences of lengths.json with SmolLM2-135M's heads, then
rows of about 4,096 tokens in sequences of equal length, for several shapes of heads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from retool.kernels.attention import causal_attention

LENGTHS = Path(__file__).with_name("lengths.json")
SMOLLM2 = (9, 3, 64)  # query heads, key heads, size
OTHERS = [SMOLLM2, (14, 2, 64), (8, 8, 64), (16, 8, 128)]
EQUAL_LENGTHS = (64, 128, 256, 512, 1024)
TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = json.loads(LENGTHS.read_text(encoding="utf-8"))
    rows = [(SMOLLM2, "as in the file", sorted(map(sum, pairs), reverse=True))]
    rows += [(heads, str(n), [n] * (TOKENS // n)) for heads in OTHERS for n in EQUAL_LENGTHS]
    print(f"{'heads':>10} {'lengths':>15}   fused → ours, ms")
    for heads, name, lengths in rows:
        fused_ms, ours_ms = compare(heads, lengths, options.rounds)
        print(f"{'/'.join(map(str, heads)):>10} {name:>15}   {fused_ms:5.1f} → {ours_ms:5.1f}", flush=True)


def fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scale: float
) -> torch.Tensor:
    sequences = zip(*(part.split(lengths, 2) for part in (query, key, value)), strict=True)
    attend = functional.scaled_dot_product_attention
    parts = [attend(*sequence, is_causal=True, scale=scale, enable_gqa=True) for sequence in sequences]
    return torch.cat([part.transpose(1, 2) for part in parts], 1)


def compare(heads: tuple[int, int, int], lengths: list[int], rounds: int) -> list[float]:
    """Milliseconds of both for one layer, forward and backward."""
    queries, keys, size = heads
    shapes = [(queries, size), (keys, size), (keys, size)]
    inputs = [torch.randn(1, sum(lengths), *shape).transpose(1, 2).requires_grad_() for shape in shapes]
    grad = torch.randn(1, sum(lengths), queries, size)
    times: dict[Callable, list[float]] = {fused: [], causal_attention: []}
    for _ in range(rounds):
        for attend, taken in times.items():
            began = time.perf_counter()
            torch.autograd.grad(attend(*inputs, lengths, size**-0.5), inputs, grad)
            taken.append(1000 * (time.perf_counter() - began))
    return [statistics.median(taken) for taken in times.values()]


if __name__ == "__main__":
    main()
