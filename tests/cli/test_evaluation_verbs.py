"""`retool eval` and `retool compare` on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retool.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def retool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["retool", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def outputs_file(path: Path, *answers: Any, problem: str = "problem") -> Path:
    rows = [{"problem": f"{problem} {n}", "answer": 1, "output": f"\\boxed{{{a}}}"} for n, a in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_graded_and_two_gradings_compared(retool: Run, tmp_path: Path) -> None:
    for name, answers in (("old", [0, 0, 0, 1]), ("new", [1, 1, 0, 1])):
        path = outputs_file(tmp_path / f"{name}.jsonl", *answers)
        code, _, said = retool("eval", "--outputs", path, "--out", tmp_path / name)
        assert code == 0 and f"{tmp_path / name / 'results.json'}" in said
    code, printed, _ = retool("compare", tmp_path / "old", tmp_path / "new", "--out", tmp_path / "comparison.json")
    assert code == 0 and "+0.500" in printed and "  0.5  " in printed
    assert json.loads((tmp_path / "comparison.json").read_text())["comparison"]["p_value"] == 0.5


def test_evaluations_of_other_problems_are_not_compared(retool: Run, tmp_path: Path) -> None:
    for name in ("old", "new"):
        path = outputs_file(tmp_path / f"{name}.jsonl", 1, problem=name)
        retool("eval", "--outputs", path, "--out", tmp_path / name)
    code, _, said = retool("compare", tmp_path / "old", tmp_path / "new")
    assert code == 2 and "share no problem" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--outputs", "x.jsonl", "--model", "m"], "only --seed and --out go with it"),
        (["--outputs", "x.jsonl"], "there is no file x.jsonl"),
        (["--model", "m"], "give --data"),
        (["--data", "puzzles"], "there is no model to evaluate: give --model"),
        (
            ["--model", "m", "--data", "puzzles", "--calls", "0,1", "--interpreter", "off"],
            "eval.calls sweeps over calls",
        ),
        (["--model", "m", "--data", "puzzles", "--calls", "many"], "eval.calls.0 must be an integer, found 'many'"),
    ],
)
def test_what_does_not_go_together_is_said(retool: Run, tmp_path: Path, words: list[str], message: str) -> None:
    code, _, said = retool("eval", *words, "--out", tmp_path / "out")
    assert code == 2 and message in said
    assert not (tmp_path / "out").exists()
