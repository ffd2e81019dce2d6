"""A run small enough for a test: the nano preset with a tiny model, three steps of RL, everything else as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from retool.config.load import load_config
from retool.config.schema import Config
from retool.stages.rl import run_rl
from retool.stages.sft import run_sft
from retool.stages.sources import load_split
from retool.stages.synth import synthesize

OVERRIDES = [
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.num_attention_heads=2",
    "data.puzzles_train=66",
    "data.puzzles_heldout=11",
    "sft.steps=8",
    "sft.save_every=4",
    "sft.warmup_steps=2",
    "rl.steps=3",
    "rl.prompts=4",
    "rl.samples=2",
    "rl.eval_every=2",
    "rl.eval_problems=5",
    "rollout.max_tokens=64",
    "rollout.rows=8",
    "sandbox.allow_weak=true",
]


def small_config(*overrides: str) -> Config:
    return load_config(Config, "nano", [*OVERRIDES, *overrides])


def train(config: Config, folder: Path) -> Path:
    """Synthesis, SFT and RL; returns the folder of the RL run."""
    rows, heldout = load_split(config)
    asyncio.run(synthesize(config, rows, folder / "synth"))
    cold = run_sft(config, folder / "synth" / "traces.jsonl", folder / "sft")
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(cold)})})
    asyncio.run(run_rl(config, [problem for problem, _ in rows], heldout, folder / "rl", "ReTool"))
    return folder / "rl"
