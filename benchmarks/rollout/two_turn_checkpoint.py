"""A checkpoint that calls the interpreter in two or more turns, for the comparisons that need one.

    python benchmarks/rollout/two_turn_checkpoint.py \\
        --model SmolLM2-135M-Instruct --data gsm8k_train.jsonl --out runs/two-turn

Cold-start traces of `retool synth`, those with exactly two calls, the shortest first; then `retool sft` in protocol
`native` on a copy of the model whose chat template shows tools (`hermes.jinja`). 40 steps of about 1,500 tokens; the
last line is the checkpoint's folder. Repeating the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from retool.data.jsonl import read_jsonl, write_jsonl

INSTRUCTION = "Solve the problem. Calculate with the python tool. Put the final answer into \\boxed{}."
"""What the prompts of this checkpoint say, in training and in the rollouts that are measured."""

TEMPLATE = Path(__file__).with_name("hermes.jinja")
CALLS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's training problems with solutions (JSONL)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=40, help="steps of fine-tuning (default 40)")
    parser.add_argument("--traces", type=int, default=160, help="traces to train on (default 160)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own choice)")
    options = parser.parse_args()

    synth, traces, base = options.out / "synth", options.out / "traces.jsonl", options.out / "base"
    if not (synth / "README.md").exists():  # written last
        words = ["--source", options.data, "--mapping", "gsm8k", "--limit", 10 * options.traces, "--out", synth]
        retool("synth", *words)
    write_jsonl(traces, shortest(synth / "traces.jsonl", options.traces))
    with_template(options.model, base)
    settings = [
        "protocol.name=native",
        f"protocol.instruction={json.dumps(INSTRUCTION)}",
        f"threads={options.threads}",
        f"sft.steps={options.steps}",
        "sft.batch_size=4",
        "sft.micro_batch_tokens=2048",
        "sft.learning_rate=2.0e-4",
        "sft.warmup_steps=5",
        "sft.decay=linear",
        "sft.save_every=10",
    ]
    retool("sft", *settings, "--model", base, "--traces", traces, "--out", options.out / "sft")
    print(options.out / "sft" / "checkpoints" / f"step-{options.steps}")


def retool(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "retool", *map(str, words)], check=True)


def shortest(path: Path, count: int) -> list[dict]:
    """The `count` shortest of the traces with exactly `CALLS` calls. SystemExit if there are fewer."""
    rows = [row for _, row in read_jsonl(path)]
    rows = [row for row in rows if sum(segment["kind"] == "code" for segment in row["segments"]) == CALLS]
    if len(rows) < count:
        raise SystemExit(f"{path} holds {len(rows)} traces with {CALLS} calls; take --traces {len(rows)} or fewer")
    return sorted(rows, key=lambda row: len(json.dumps(row)))[:count]


def with_template(model: Path, base: Path) -> None:
    """A copy of the model in `base` whose chat template is `hermes.jinja`; the weights are linked."""
    base.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        link = base / file.name
        if file.suffix == ".safetensors":
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
        elif file.is_file():
            shutil.copyfile(file, link)
    shutil.copyfile(TEMPLATE, base / "chat_template.jinja")
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)  # older files keep the template here, where it would win
    (base / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
