"""Which checkpoints a run leaves: the newest, the best, and never half a one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import reinforce, small_config
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import Config, RlConfig, SftConfig
from retool.learner.checkpoint import latest_resumable, list_checkpoints
from retool.learner.optimizer import Optimizer
from retool.learner.trained import Trained
from retool.runs import RunFolder
from retool.stages.training.keeping import Keeper

ACCURACIES = {1: 0.1, 2: 0.5, 3: 0.5, 4: 0.2, 5: 0.4, 6: 0.6, 7: 0.6, 8: 0.1}
Steps = Callable[[RunFolder, int], None]


@pytest.fixture
def go_on(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Steps:
    """Goes through the steps of a run, from its last checkpoint up to a step."""

    def steps(run: RunFolder, last: int, keep: int | None = 1) -> None:
        trained = Trained(model, Optimizer(model, SftConfig(), 8), model.dtype)
        newest = latest_resumable(run.checkpoints)
        first = int(newest.name.removeprefix("step-")) if newest else 0
        run.rewind(first)
        rl = RlConfig(steps=8, save_every=4, keep_states=1, keep_checkpoints=keep)
        keeper = Keeper(run, rl, trained, tokenizer, first)
        for step in range(first + 1, last + 1):
            keeper.learned(step, {})
            run.log(step, {"heldout_accuracy": ACCURACIES[step]}, {})
            keeper.finished(step, ACCURACIES[step])

    return steps


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.open(Config(), {})
    return run


def kept(run: RunFolder) -> list[int]:
    return [step for step, _ in list_checkpoints(run.checkpoints)]


def best(run: RunFolder) -> dict[str, float]:
    return json.loads((run.checkpoints / "best.json").read_text())


def test_the_newest_and_the_best_stay(run: RunFolder, go_on: Steps) -> None:
    go_on(run, 1)
    assert (kept(run), best(run)) == ([1], {"step": 1, "accuracy": 0.1})
    go_on(run, 5)
    assert (kept(run), best(run)) == ([2, 4], {"step": 2, "accuracy": 0.5})  # of equal ones the earlier
    go_on(run, 8)
    assert (kept(run), best(run)) == ([6, 8], {"step": 6, "accuracy": 0.6})


def test_without_a_bound_all_stay(run: RunFolder, go_on: Steps) -> None:
    go_on(run, 8, keep=None)
    assert kept(run) == [1, 2, 4, 6, 8]
    assert [step for step, path in list_checkpoints(run.checkpoints) if (path / "trainer").exists()] == [8]


def test_one_that_is_gone_is_not_named_after_a_resume(run: RunFolder, go_on: Steps) -> None:
    go_on(run, 5)
    shutil.rmtree(run.checkpoints / "step-2")
    go_on(run, 4)
    assert best(run) == {"step": 4, "accuracy": 0.2}
    shutil.rmtree(run.checkpoints / "step-4")
    go_on(run, 0)
    assert not (run.checkpoints / "best.json").exists()


@pytest.mark.parametrize("killed_at", range(1, 25))
def test_a_kill_between_two_changes_of_the_disk_leaves_all_whole(
    run: RunFolder, go_on: Steps, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In step 6 a new best is saved and named, the old one goes, and so does a state."""
    go_on(run, 5)
    changes = iter(range(1, 100))
    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (shutil, "rmtree"), (Path, "write_bytes"), (os, "replace")):
            original = getattr(owner, name)

            def change(*arguments: object, original: Callable = original, **options: object) -> object:
                if next(changes) == killed_at:
                    raise KeyboardInterrupt
                return original(*arguments, **options)

            patch.setattr(owner, name, change)
        try:
            go_on(run, 6)
        except KeyboardInterrupt:
            pass
        else:
            assert next(changes) <= killed_at
    for _, path in list_checkpoints(run.checkpoints):
        AutoModelForCausalLM.from_pretrained(path)
    assert best(run)["step"] in kept(run)
    go_on(run, 6)
    assert best(run) == {"step": 6, "accuracy": 0.6}
    assert kept(run) == [6]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.json", "step-6"]


def test_a_run_names_its_best_checkpoint(cold: Path, tmp_path: Path) -> None:
    config = small_config("rl.save_every=3", "rl.eval_every=1", "rl.keep_checkpoints=1", "rl.eval_problems=2")
    found = reinforce(config, cold, tmp_path)
    assert kept(found) == sorted({int(best(found)["step"]), 3})
