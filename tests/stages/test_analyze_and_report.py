"""Curves and pages of whatever runs and evaluations there are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from small_run import small_config, train

from retool.errors import UsageError
from retool.stages.analyze import analyze_runs
from retool.stages.eval import run_eval
from retool.stages.report import report_runs
from retool.stages.sources import load_heldout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `rl/` and an evaluation of its last checkpoint, interpreter off, in `off/`."""
    folder = tmp_path_factory.mktemp("report")
    run = train(small_config(), folder)
    config = small_config(f"model.path={run / 'checkpoints' / 'step-3'}", "eval.interpreter=off", "eval.samples=2")
    asyncio.run(run_eval(config, load_heldout(config), folder / "off"))
    return folder


def test_a_run_gives_curves_and_an_evaluation_gives_figures(folder: Path) -> None:
    found = analyze_runs([folder / "rl", folder / "off"])
    assert {(row["arm"], row["step"]) for row in found["curves"]} == {("rl", 0), ("rl", 2), ("rl", 3)}
    off = found["evaluations"]["off"]
    assert (off["problems"], off["samples"], off["code_ratio"]) == (11, 2, 0.0)
    assert set(off["families"]) == {f for f in off["families"] if 0.0 <= off["families"][f] <= 1.0}


def test_the_opening_of_a_call_is_never_written_with_the_interpreter_off(folder: Path) -> None:
    assert "<code>" not in (folder / "off" / "samples.jsonl").read_text()


def test_one_page_shows_them_together(folder: Path) -> None:
    report_runs([folder / "rl", folder / "off"], folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "<title>" in page and "rl, off" in page


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a run .* nor an evaluation"):
        analyze_runs([tmp_path])
