"""What a run says and keeps of its rollouts: the live line, the costs of each batch, the timeline, the spares."""

from __future__ import annotations

import io
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from small_run import small_config, train

from retool.rollout.meter import Meter
from retool.runs import RunFolder, read_rows
from retool.stages import progress
from retool.types import Author


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Fewer rows than trajectories, spares that are cancelled, and a timeline."""
    config = small_config(
        "rollout.deterministic=false",
        "rollout.oversample=1.6",
        "rollout.rows=5",
        "rollout.timeline=true",
        "rollout.stateful=true",
    )
    return RunFolder(train(config, tmp_path_factory.mktemp("oversampled")))


def test_spares_are_started_and_not_kept(run: RunFolder) -> None:
    for row, trajectories in zip(read_rows(run.timings), run.read_trajectories().values(), strict=True):
        assert row["trajectories"] + row["cancelled"] == 4 * 4  # rounded up from 2 × 1.6
        assert len(trajectories) == 4 * 2


def test_evaluations_have_no_spares(run: RunFolder) -> None:
    assert {step: len(found) for step, found in run.read_evaluations().items()} == {0: 5, 2: 5, 3: 5}


def test_the_costs_of_each_batch_are_kept_beside_the_seconds(run: RunFolder) -> None:
    rows = list(read_rows(run.timings))
    for row, trajectories in zip(rows, run.read_trajectories().values(), strict=True):
        assert row["model_tokens"] >= sum(t.tokens(Author.MODEL) for t in trajectories) > 0
        assert row["sampled_tokens"] >= row["model_tokens"]
        assert row["rollout_seconds"] > 0 and row["decode_seconds"] > 0
        assert 0 < row.get("occupancy", 0.5) <= 1
    assert ["heldout_model_tokens" in row for row in rows] == [False, True, True]


def test_a_step_begins_when_the_phases_of_the_one_before_are_over(run: RunFolder) -> None:
    rows = list(read_rows(run.timings))
    phases = ("rollout_seconds", "update_seconds", "weights_seconds", "evaluation_seconds")
    for row, following in pairwise(rows):
        assert 0 <= following["began"] - row["began"] - sum(row.get(phase, 0) for phase in phases) < 60
    assert rows[-1]["began"] <= time.time()


def test_each_batch_has_a_timeline_that_opens_in_perfetto(run: RunFolder) -> None:
    files = sorted(run.timelines.iterdir())
    assert [path.name for path in files] == ["step-1.json", "step-2.json", "step-3.json"]
    events = json.loads(files[0].read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    ids = {t.id for t in run.read_trajectories()[1]}
    assert ids <= tracks
    assert {event["ph"] for event in events} == {"M", "X"}


def test_a_rewind_drops_the_timelines_too(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path)
    for step in (1, 2):
        copy.timelines.mkdir(exist_ok=True)
        (copy.timelines / f"step-{step}.json").write_text("{}")
    copy.rewind(1)
    assert [path.name for path in copy.timelines.iterdir()] == ["step-1.json"]


def test_the_live_line_says_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=200))
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    with progress.Progress("RL", 1) as line:
        line.begin_rollout(8, lambda: 0.43)
        meter = Meter(on_change=line.rollout_changed)
        with meter.trajectory(prompt_tokens=3):
            meter.wrote(Author.MODEL, 1000)
            with meter.calling("a"):
                pass
    first = written.getvalue().splitlines()[0]
    assert first.startswith("RL: 0/8 trajectories  ")
    assert "tokens/s, 0.0 calls/s, 0 waiting on tools, cache 43%" in first
