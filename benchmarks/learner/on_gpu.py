"""An RL update of Qwen2.5-Coder-0.5B in bf16 on a CUDA GPU: its share of the GPU's speed, its memory, TRL's beside it.

    benchmarks/gpu.sh learner [--model PATH] [--trl-python PATH] [--rounds 3] [--budget 32768]
    benchmarks/gpu.sh learner --device cpu --model FOLDER      shows without a GPU that it runs; take a small model

112 sequences of 512 tokens at most, 32,305 tokens. The last line is a JSON object, medians over the rounds:
    tokens_per_second  of forward, loss, backward, clipping and AdamW, with fp32 masters
    mfu                6 · parameters · tokens per second over the speed of a large product of the same type in this
                       run; attention and what is computed twice are not counted
    peak_tflops        that product
    gigabytes          the most that tensors took
    vs_trl             tokens per second over TRL's GRPOTrainer, weights of the same type; null: not measured
    trl_gigabytes      the most that its tensors took
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from rollout.peer import say

from learner import update

REPEATS = 7
_LARGE = {"cuda": 8192, "cpu": 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen/Qwen2.5-Coder-0.5B-Instruct", help="Hugging Face id or folder")
    parser.add_argument("--trl-python", type=Path, help="a Python with TRL 1.16")
    parser.add_argument("--trl-micro-batch", type=int, default=16, help="TRL's sequences at a time (default 16)")
    parser.add_argument("--budget", type=int, default=32768, help="tokens of a micro-batch (default 32768)")
    parser.add_argument("--device", default="cuda", help="cuda (default), or cpu to see that it runs")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of the comparison (default 3)")
    options = parser.parse_args()
    on_gpu = options.device != "cpu"
    chosen = options.device, "bfloat16" if on_gpu else "float32"
    ours = update.Update(options.model, options.budget, *chosen)
    sequences = update.draw_sequences(ours.model.config.get_text_config().vocab_size, REPEATS if on_gpu else 1)
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    say(f"{name}, torch {torch.__version__}; {sequences.tokens} tokens an update")
    trl = update.trl_peer(
        options.trl_python, options.model, sequences, options.trl_micro_batch, torch.get_num_threads(), *chosen
    )
    trajectories = ours.record(sequences)
    ours.run(trajectories)
    theirs = trl.ask({}) if trl else {}
    seconds, ratios, peaks = [], [], []
    for _ in range(options.rounds):
        peaks.append(product_flops(ours.model.device, ours.model.dtype))
        took, norm = ours.run(trajectories)
        seconds.append(took)
        say(f"ReTool {took:.2f} s, {sequences.tokens / took:,.0f} tokens/s; norm of the gradient {norm:.4f}")
        if trl:
            theirs = trl.ask({})
            ratios.append(theirs["seconds"] / took)
            say(f"TRL    {theirs['seconds']:.2f} s; norm of the gradient {theirs['norm']:.4f}")
    if trl:
        trl.close()
    speed = sequences.tokens / statistics.median(seconds)
    peak = statistics.median(peaks)
    figures = {
        "tokens_per_second": round(speed),
        "mfu": round(6 * ours.matrix_parameters * speed / peak, 3),
        "peak_tflops": round(peak / 1e12, 1),
        "gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2) if on_gpu else None,
        "vs_trl": round(statistics.median(ratios), 3) if ratios else None,
        "trl_gigabytes": theirs.get("gigabytes"),
    }
    print(json.dumps(figures))


def product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square product, the best of ten."""
    size = _LARGE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(11):
        began = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times[1:])


if __name__ == "__main__":
    main()
