"""Products of SmolLM2-135M's layers, forward and backward, through oneDNN and through PyTorch's choice.

    python benchmarks/learner/products.py [--rows 512 2048] [--threads N]

Prints GFLOP/s, median of several calls, for X·Wᵀ, dY·W and dYᵀ·X.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from retool.kernels.products import multiply

SHAPES = [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576)]
PRODUCTS = [  # of X, W and dY: as PyTorch computes them, and through oneDNN
    (lambda x, w, y: functional.linear(x, w), lambda x, w, y: multiply(x, w)),
    (lambda x, w, y: y @ w, lambda x, w, y: multiply(y, w.t())),
    (lambda x, w, y: y.t() @ x, lambda x, w, y: multiply(y.t(), x.t())),
]
_LARGE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'rows':>6} {'layer':>12}   forward        dX             dW     (PyTorch → oneDNN, GFLOP/s)")
    for rows in options.rows:
        for n, k in SHAPES:
            x, w, y = torch.randn(rows, k), torch.randn(n, k), torch.randn(rows, n)
            operands, operations = (x, w, y), 2 * rows * n * k
            speeds = [[gflops(partial(way, *operands), operations) for way in ways] for ways in PRODUCTS]
            print(f"{rows:6} {n:>6}×{k:<5}  " + "  ".join(f"{a:5.0f} → {b:5.0f}" for a, b in speeds), flush=True)


def gflops(call: Callable[[], torch.Tensor], operations: int) -> float:
    calls = 3 if operations > 5e10 else 9
    times = []
    with torch.no_grad():
        call()
        for _ in range(calls):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return operations / statistics.median(times) / 1e9


def peak_gflops() -> float:
    """The fp32 speed of this machine: the better of both on a large square product."""
    a, b = torch.randn(_LARGE, _LARGE), torch.randn(_LARGE, _LARGE)
    return max(gflops(call, 2 * _LARGE**3) for call in (lambda: functional.linear(a, b), lambda: multiply(a, b)))


if __name__ == "__main__":
    main()
