"""What it costs an RL update that glibc gives freed memory back to the system, and what keeping it saves.

    python benchmarks/page_faults.py --model FOLDER [--rounds 3] [--threads N]

Each round updates SmolLM2-135M twice as it is and twice with `kernels.memory.keep_freed_memory`, in processes of their
own; the second update counts, when the first has found its memory. The last line is a JSON object: medians of `seconds`
and of page `faults`, [given back, kept], and the `ratio` of the seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from learner import update
from retool.kernels.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--once", choices=("given back", "kept"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(second_update(options.model, options.threads, options.once == "kept")))
        return
    found: dict[str, list[tuple[float, int]]] = {"given back": [], "kept": []}
    for _ in range(options.rounds):
        for name, measured in found.items():
            command = [sys.executable, __file__, "--model", options.model, "--threads", options.threads, "--once", name]
            output = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
            measured.append(json.loads(output.splitlines()[-1]))
            print(f"{name}: {measured[-1][0]:.2f} s, {measured[-1][1]:,} page faults", flush=True)
    seconds, faults = (
        [statistics.median(column) for column in columns]
        for columns in zip(*(zip(*each, strict=True) for each in found.values()), strict=True)
    )
    print(json.dumps({"seconds": seconds, "faults": faults, "ratio": seconds[0] / seconds[1]}))


def second_update(model: Path, threads: int, keeps: bool) -> tuple[float, int]:
    torch.set_num_threads(threads)
    if keeps:
        keep_freed_memory()
    ours = update.Update(model, budget=2048)
    trajectories = ours.record(update.draw_sequences(ours.model.config.vocab_size))
    ours.run(trajectories)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds, _ = ours.run(trajectories)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    main()
