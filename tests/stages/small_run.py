"""A run small enough for a test: the nano preset with a tiny model, three steps of RL, everything else as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from retool.config.load import load_config
from retool.config.schema import Config
from retool.learner.checkpoint import list_checkpoints
from retool.runs import RunFolder
from retool.stages.sources import load_split
from retool.stages.synth import synthesize
from retool.stages.training.rl import run_rl
from retool.stages.training.sft import run_sft
from retool.types import Trajectory

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


def cold_start(config: Config, folder: Path) -> Path:
    """Synthesis and SFT; returns the checkpoint that RL starts from."""
    rows, _ = load_split(config)
    asyncio.run(synthesize(config, rows, folder / "synth"))
    return run_sft(config, folder / "synth" / "traces.jsonl", folder / "sft")


def reinforce(config: Config, cold: Path, out: Path) -> RunFolder:
    """RL from a checkpoint."""
    rows, heldout = load_split(config)
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(cold)})})
    asyncio.run(run_rl(config, [problem for problem, _ in rows], heldout, out, "ReTool"))
    return RunFolder(out)


def train(config: Config, folder: Path) -> Path:
    """Synthesis, SFT and RL; returns the folder of the RL run."""
    return reinforce(config, cold_start(config, folder), folder / "rl").path


def assert_same(run: RunFolder, other: RunFolder) -> None:
    """Two runs in deterministic mode have left the same: logs, trajectories but for `timing`, weights of the end."""
    for name in ("metrics.jsonl", "alarms.jsonl", "checkpoints/best.json"):
        assert _content(run.path / name) == _content(other.path / name), name
    last = [list_checkpoints(each.checkpoints)[-1] for each in (run, other)]
    assert last[0][0] == last[1][0]
    assert _content(last[0][1] / "model.safetensors") == _content(last[1][1] / "model.safetensors")
    for found in (RunFolder.read_trajectories, RunFolder.read_evaluations):
        assert _untimed(found(run)) == _untimed(found(other))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _untimed(by_step: dict[int, list[Trajectory]]) -> dict[int, list[dict[str, Any]]]:
    rows = {step: [trajectory.to_json() for trajectory in trajectories] for step, trajectories in by_step.items()}
    return {step: [row | {"timing": None} for row in found] for step, found in rows.items()}
