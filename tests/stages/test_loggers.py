"""The rows of a run, shown elsewhere. The trackers are stand-ins that record what they are told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import reinforce, small_config

from retool.config.schema import Config
from retool.errors import UsageError
from retool.runs import RunFolder, read_rows
from retool.stages.training.logbook import Logbook
from retool.stages.training.loggers import check_loggers, last_logged, open_loggers


class Tracker:
    """The calls that Weights & Biases and trackio share."""

    def __init__(self) -> None:
        self.began: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> None:
        self.began.append(options)

    def log(self, row: dict[str, float], step: int) -> None:
        self.logged.append((step, row))

    def finish(self) -> None:
        self.finished += 1


def go_on(config: Config, out: Path, first: int, last: int) -> None:
    run = RunFolder(out)
    run.open(config, {})
    logged = last_logged(run)
    run.rewind(first)
    with open_loggers(config, run, first, logged) as loggers:
        logbook = Logbook(run, loggers)
        for step in range(first + 1, last + 1):
            logbook.write(step, {"reward": step / 10}, {"rollout_seconds": 1.0})


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_each_step_once_though_the_run_was_killed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    module = SimpleNamespace(init=tracker.init, log=tracker.log, finish=tracker.finish)
    monkeypatch.setitem(sys.modules, name, module)
    config = Config(log_to=(name,))
    go_on(config, tmp_path / "mine", 0, 3)
    go_on(config, tmp_path / "mine", 1, 4)  # from the checkpoint of step 1
    assert [step for step, _ in tracker.logged] == [1, 2, 3, 4]
    assert tracker.logged[1][1] == {"metrics/reward": 0.2, "timings/rollout_seconds": 1.0}
    first, second = tracker.began
    assert first == second and tracker.finished == 2
    assert (first["project"], first["resume"]) == ("retool", "allow")
    assert first["name"].startswith("mine-") and first.get("id", first["name"]) == first["name"]
    assert first["config"]["rl"]["algorithm"] == "ppo"


def test_another_run_in_such_a_folder_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    for folder in ("a", "b"):
        go_on(Config(log_to=("wandb",)), tmp_path / folder / "mine", 0, 1)
    assert tracker.began[0]["id"] != tracker.began[1]["id"]


def test_tensorboard_shows_each_step_once_though_the_run_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = Config(log_to=("tensorboard",))
    go_on(config, tmp_path, 0, 3)
    go_on(config, tmp_path, 1, 4)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("metrics/reward")] == [1, 2, 3, 4]
    assert events.Scalars("timings/rollout_seconds")[0].value == 1.0


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_library_is_named_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match=rf"log_to={name} needs .*: pip install 'retool\[{name}\]'"):
        check_loggers([name])


def test_nothing_begins_without_a_library_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="log_to=wandb needs"):
        reinforce(small_config("log_to=[wandb]"), tmp_path / "model", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_shows_all_its_rows(cold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    run = reinforce(small_config("log_to=[trackio]", "rl.steps=2"), cold, tmp_path)
    for (step, shown), metrics, timings in zip(
        tracker.logged, read_rows(run.metrics), read_rows(run.timings), strict=True
    ):
        rows = {f"metrics/{name}": value for name, value in metrics.items() if name != "step"}
        rows |= {f"timings/{name}": value for name, value in timings.items() if name not in ("step", "began")}
        assert (step, shown) == (metrics["step"], rows)
    assert {"timings/rollout_tokens_per_second", "timings/update_seconds", "metrics/void_turn_rate"} <= rows.keys()
