"""The page of a run that was really made, and of an evaluation of its last checkpoint."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from small_run import small_config, train

from parsed_page import Page
from retool.runs import RunFolder
from retool.stages.eval.recipe import run_eval
from retool.stages.report.recipe import report_runs
from retool.stages.sources import load_heldout
from retool.types import Author


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `rl/` and an evaluation of its last checkpoint, interpreter off, in `off/`."""
    folder = tmp_path_factory.mktemp("report")
    run = train(small_config("rollout.timeline=true"), folder)
    config = small_config(f"model.path={run / 'checkpoints' / 'step-3'}", "eval.interpreter=off", "eval.samples=2")
    asyncio.run(run_eval(config, load_heldout(config), folder / "off"))
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    report_runs([folder / "rl", folder / "off"], folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def ascii_of(text: str) -> str:
    """Other characters may be spread over several tokens, each of which has no text of its own."""
    return re.sub(r"[^\x20-\x7e]", "", text)


def test_the_opening_of_a_call_is_never_written_with_the_interpreter_off(folder: Path) -> None:
    assert "<code>" not in (folder / "off" / "samples.jsonl").read_text()


def test_all_that_was_sampled_is_on_the_page(folder: Path, page: Page) -> None:
    run = RunFolder(folder / "rl")
    recorded = {
        (origin, step, t.id): t
        for origin, by_step in (("held-out", run.read_evaluations()), ("rollouts", run.read_trajectories()))
        for step, trajectories in by_step.items()
        for t in trajectories
    }
    shown = {(row["origin"], row["step"], page.read(row)["id"]): row for row in page.rows if row["step"] is not None}
    assert shown.keys() == recorded.keys()
    assert len(page.rows) == len(recorded) + 11 * 2
    for key, trajectory in recorded.items():
        tokens = page.tokens(shown[key])
        assert ascii_of("".join(tokens["pieces"])) == ascii_of("".join(span.text for span in trajectory.spans))
        assert len(tokens["logprobs"]) == trajectory.tokens(Author.MODEL)


def test_sampler_and_learner_agree_to_a_ten_thousandth(page: Page) -> None:
    learned = [page.tokens(row) for row in page.rows if row["gap"] is not None]
    assert learned
    assert {gap for tokens in learned for gap in tokens["gap"]} == {0}


def test_the_page_shows_who_did_what_in_a_step(folder: Path, page: Page) -> None:
    (lane,) = page.drawings["charts"]["step-rl"]["data"]["values"]
    assert lane["name"] == "learner"
    bars = page.drawings["charts"]["step-rl"]["layer"][-2]["data"]["values"]
    assert [bar["what"] for bar in bars][:3] == ["rollout", "update", "weights"]


def test_each_call_that_ran_in_a_rollout_has_its_seconds(page: Page) -> None:
    for row in page.rows:
        if row["origin"] == "rollouts":
            timed = ["run" in call for call in page.read(row)["calls"]]
            assert timed == [call["status"] != "malformed" for call in page.read(row)["calls"]]
