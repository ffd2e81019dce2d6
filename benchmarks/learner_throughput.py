"""The learner on a CPU: an RL update next to TRL's, and what it leaves of the processor's speed and of the memory.

    python benchmarks/learner_throughput.py --model FOLDER [--trl-python PATH] [--rounds 3] [--threads N]
        [--figures NAME ...] [--calling-model FOLDER --data FILE]

FOLDER holds SmolLM2-135M; for a whole step it takes one that calls (benchmarks/rollout/two_turn_checkpoint.py) and
GSM8K's problems. Prints what is measured while it goes on, and as its last line a JSON object:
    update_vs_trl      tokens per second of an update over TRL's GRPOTrainer: loss, backward, clipping, AdamW on
                       16 sequences of 512 tokens at most (benchmarks/learner/lengths.json), neither with old log-probs
    step_vs_trl        completions per second of a whole step with calls over TRL's: rollout, grading, update; 8 prompts
                       × 8 completions
    gemm_share         6 · parameters · tokens per second over what a large fp32 product reaches in the same run
    peak_memory_ratio  memory of head and loss over that of logits, log_softmax and gather, 4,096 tokens, vocabulary
                       151,936 (the plain way takes 13 GB)
Ratios are medians over the rounds, in which both sides take turns. null: not measured; of a peer that is not there the
command that brings it is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import transformers

from learner import head_memory, products, step, update
from retool.data.load import load_problems
from retool.kernels.memory import keep_freed_memory
from rollout import peer

FIGURES = ("update", "memory", "step")
STEP_PROMPTS = 8
MEMORY_TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--trl-python", type=Path, help="a Python with TRL 1.16")
    parser.add_argument("--calling-model", type=Path, help="a checkpoint that calls tools, for a whole step")
    parser.add_argument("--data", type=Path, help="GSM8K's problems, for a whole step")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each comparison (default 3)")
    parser.add_argument("--budget", type=int, default=2048, help="tokens of a micro-batch (default 2048)")
    parser.add_argument("--trl-micro-batch", type=int, default=8, help="TRL's sequences at a time (default 8, its own)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="measure these only")
    options = parser.parse_args()
    keep_freed_memory()  # as every stage does
    torch.set_num_threads(options.threads)
    peer.say(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {options.threads} threads; load average "
        f"{os.getloadavg()[0]:.1f} before anything was measured"
    )
    figures: dict[str, float | None] = dict.fromkeys(
        ("update_vs_trl", "step_vs_trl", "gemm_share", "peak_memory_ratio")
    )
    if "memory" in options.figures:
        figures["peak_memory_ratio"] = memory_ratio()
    if "update" in options.figures:
        figures |= updates(options)
    if "step" in options.figures and options.trl_python and options.calling_model and options.data:
        problems = load_problems(str(options.data), "gsm8k").problems[:STEP_PROMPTS]
        chosen = options.trl_python, options.threads, options.rounds, options.budget
        figures["step_vs_trl"] = asyncio.run(step.over_trl(options.calling_model, problems, *chosen))
    print(json.dumps({name: None if value is None else round(value, 3) for name, value in figures.items()}))


def updates(options: argparse.Namespace) -> dict[str, float]:
    ours = update.Update(options.model, options.budget)
    sequences = update.draw_sequences(ours.model.config.vocab_size)
    trl = update.trl_peer(options.trl_python, options.model, sequences, options.trl_micro_batch, options.threads)
    trajectories = ours.record(sequences)
    ours.run(trajectories)
    if trl:
        trl.ask({})
    shares, ratios = [], []
    for _ in range(options.rounds):
        peak = products.peak_gflops()
        seconds, norm = ours.run(trajectories)
        speed = 6 * ours.matrix_parameters * sequences.tokens / seconds / 1e9
        shares.append(speed / peak)
        peer.say(
            f"ReTool {seconds:.2f} s, {sequences.tokens / seconds:.0f} tokens/s, {speed:.0f} of {peak:.0f} GFLOP/s"
        )
        if trl:
            theirs = trl.ask({})
            ratios.append(theirs["seconds"] / seconds)
            peer.say(f"TRL    {theirs['seconds']:.2f} s; norms of the gradient {norm:.4f} and {theirs['norm']:.4f}")
            if abs(theirs["norm"] / norm - 1) > 0.01:
                raise SystemExit("the two sides do not compute the same gradient")
    if trl:
        trl.close()
    return {"gemm_share": statistics.median(shares)} | ({"update_vs_trl": statistics.median(ratios)} if ratios else {})


def memory_ratio() -> float:
    """Each way in a process of its own."""
    used = {}
    for way in ("plain", "retool"):
        command = [sys.executable, head_memory.__file__, way, str(MEMORY_TOKENS)]
        environment = os.environ | {"PYTHONPATH": str(peer.ROOT / "src")}
        used[way] = int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    peer.say(f"head and loss: {used['plain'] / 1e9:.2f} GB the plain way, {used['retool'] / 1e9:.2f} GB ReTool's")
    return used["retool"] / used["plain"]


if __name__ == "__main__":
    main()
