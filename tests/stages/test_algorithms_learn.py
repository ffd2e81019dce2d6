"""Every algorithm teaches the nano model when and how to call: from a cold start of about 0.65 to 0.9 in five RL steps.

Slow: a cold start for each seed, and a run of half a minute for each algorithm on it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retool.config.load import load_config
from retool.config.schema import Config
from retool.runs import read_trajectories
from retool.stages.sources import load_split
from retool.stages.synth import synthesize
from retool.stages.training.rl import run_rl
from retool.stages.training.sft import run_sft

STEPS, PASSED = 5, 0.9
OVERRIDES = [f"rl.steps={STEPS}", "rl.save_every=5", "rl.decay=constant", "rl.eval_every=5", "rl.eval_problems=100"]


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed{}".format)
def cold(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """A seed, and the model after the cold start."""
    folder, config = tmp_path_factory.mktemp("cold"), load_config(Config, "nano", [f"seed={request.param}"])
    rows, _ = load_split(config)
    asyncio.run(synthesize(config, rows, folder / "synth"))
    return request.param, run_sft(config, folder / "synth" / "traces.jsonl", folder / "sft")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dr_grpo", "rloo", "gspo", "cispo"])
def test_it_learns(cold: tuple[int, Path], algorithm: str, tmp_path: Path) -> None:
    seed, model = cold
    overrides = [*OVERRIDES, f"seed={seed}", f"model.path={model}", f"rl.algorithm={algorithm}"]
    config = load_config(Config, "nano", overrides)
    rows, heldout = load_split(config)
    asyncio.run(run_rl(config, [problem for problem, _ in rows], heldout, tmp_path, "ReTool"))
    accuracies = []
    for step in (0, STEPS):
        answers = list(read_trajectories(tmp_path / "eval" / f"step-{step}.jsonl"))
        accuracies.append(sum(answer.correct for answer in answers) / len(answers))
    print(f"seed {seed}, {algorithm}: {accuracies[0]:.2f} before, {accuracies[1]:.2f} after {STEPS} steps")
    assert accuracies[0] < 0.8
    assert accuracies[1] >= PASSED
