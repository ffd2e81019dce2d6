"""A step without one finite gradient changes nothing and is named; three in a row end the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import reinforce, small_config

from retool.errors import RetoolError
from retool.objectives.registry import register
from retool.runs import RunFolder, read_rows

CALLS = {"finite": 0}


@register("policy_loss", "finite_at_first")
def finite_at_first(logprobs_N, old_logprobs_N, advantages_N, lengths_B):
    CALLS["finite"] -= 1
    return logprobs_N * (1.0 if CALLS["finite"] >= 0 else torch.nan), {}


def run_with(finite: int, cold: Path, out: Path) -> RunFolder:
    """A run of two updates a step, the first `finite` of which are."""
    CALLS["finite"] = finite
    settings = ("rl.algorithm=grpo", "rl.loss=finite_at_first", "rl.steps=6", "rl.eval_every=0", "rl.mini_batches=2")
    return reinforce(small_config(*settings), cold, out)


def test_three_steps_without_an_update_end_the_run(cold: Path, tmp_path: Path) -> None:
    with pytest.raises(RetoolError, match=r"steps 2 to 4 .*last good weights are .*step-1: .*rl.learning_rate"):
        run_with(2, cold, tmp_path)
    run = RunFolder(tmp_path)
    assert [row["dropped_updates"] for row in read_rows(run.metrics)] == [0.0, 1.0, 1.0, 1.0]
    assert [row["grad_norm"] is None for row in read_rows(run.metrics)] == [False, True, True, True]
    assert "NaN" not in run.metrics.read_text()  # which is no JSON
    begun = [row for row in read_rows(run.alarms) if row["name"] == "nan"]
    assert [(row["step"], row["event"]) for row in begun] == [(2, "begins")]
    weights = [(run.checkpoints / f"step-{step}" / "model.safetensors").read_bytes() for step in (1, 3)]
    assert weights[0] == weights[1]
    with pytest.raises(RetoolError, match="steps 2 to 4"):
        run_with(0, cold, tmp_path)


def test_a_run_that_never_was_finite_names_the_model_it_began_with(
    cold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RetoolError, match=f"steps 1 to 3 .*last good weights are {cold}"):
        run_with(0, cold, tmp_path)


def test_a_step_with_some_updates_goes_on(cold: Path, tmp_path: Path) -> None:
    with pytest.raises(RetoolError, match="steps 4 to 6"):
        run_with(5, cold, tmp_path)
    assert [row["dropped_updates"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]
