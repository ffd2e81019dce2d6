"""Another system's texts, graded: what it says counts, and nothing else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from retool.grading import Grader
from retool.runs import read_trajectories
from retool.stages.eval.outputs import grade_outputs

TRAPS: dict[str, tuple[Any, str, bool]] = {  # what is tried: reference, output, is it right?
    "a plain answer": (42, "so \\boxed{42}", True),
    "the reference is a text": ("42", "so \\boxed{42}", True),
    "the reference is a decimal": (0.5, "so \\boxed{\\frac{1}{2}}", True),
    "the last of several boxes counts": (2, "first \\boxed{1}, no, \\boxed{2}", True),
    "not the first": (1, "first \\boxed{1}, no, \\boxed{2}", False),
    "a box in a box": ("\\frac{1}{2}", "\\boxed{\\frac{1}{2}}", True),
    "the interpreter printed the box": (42, "<code>c</code>\n<interpreter>\n\\boxed{42}\n</interpreter>\nDone.", False),
    "in an output fence": (42, "```python\nc\n```\n```output\n\\boxed{42}\n```\nDone.", False),
    "in a tool response": (42, "<tool_call>{}</tool_call><tool_response>\\boxed{42}</tool_response>", False),
    "code that prints a box": (42, "<code>\nprint('\\boxed{42}')\n</code>\n<interpreter>\n</interpreter>\n", False),
    "code that was not run": (42, "```python\nprint('\\boxed{42}')\n```\n", False),
    "an answer after code that was not run": (42, "```python\nx\n```\nso \\boxed{42}", True),
    "a box beside the printed one": (7, "\\boxed{7}<code>c</code><interpreter>\\boxed{42}</interpreter>", True),
    "a box around a result": (4, "\\boxed{<code>c</code>\n<interpreter>4</interpreter>}", False),
    "cut short in a box": (1, "maybe \\boxed{1}, or rather \\boxed{2", False),
    "cut short in code": (1, "\\boxed{1} Check: <code>print(", False),
    "no box": (42, "The answer is 42.", False),
    "nothing": (42, "", False),
    "a text answer": ("Evelyn", "\\boxed{\\text{Evelyn}}", True),
    "an interval": ("(-\\infty, 2]", "\\boxed{(-\\infty,2]}", True),
    "another interval": ("(-\\infty, 2]", "\\boxed{(-\\infty,2)}", False),
    "a percentage": ("50\\%", "\\boxed{50\\%}", True),
    "thousands": ("10,000", "\\boxed{10000}", True),
    "another unit": ("6 hours", "\\boxed{6\\text{ minutes}}", False),
    "a set for a point": ("(1,2)", "\\boxed{\\{1,2\\}}", False),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_only_what_the_model_says_itself_is_graded(trap: str, tmp_path: Path) -> None:
    answer, output, right = TRAPS[trap]
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps({"problem": "?", "answer": answer, "output": output}) + "\n")
    assert grade_outputs(path, tmp_path / "out")["accuracy"] == right


def test_it_leaves_what_an_evaluation_leaves(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    called = "<code>\nprint(6 * 7)\n</code>\n<interpreter>\n42\n</interpreter>\n\\boxed{42}"
    rows = [
        {"problem": "6 * 7?", "answer": 42, "output": [called, "\\boxed{0.5}", "\\boxed{1/2}", "\\boxed{42}"]},
        {"problem": "1 + 1?", "answer": 2, "output": ["\\boxed{2}", "\\boxed{3}", "", "\\boxed{2}"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = grade_outputs(path, tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["accuracy"], results["problems"], results["samples"]) == (0.5, 2, 4)
    assert results["pass_at"]["1"] == 0.5 and results["pass_at"]["4"] == 1.0
    assert results["maj_at"]["4"] == 0.75  # 0.5 and 1/2 are one vote of two, level with 42
    assert results["code_ratio"] == 1 / 8
    assert results["protocol"]["token_exact"] is False and results["protocol"]["problems"]["theirs"]["problems"] == 2
    kept = list(read_trajectories(tmp_path / "out" / "samples.jsonl"))
    assert [t.correct for t in kept] == [True, False, False, True, True, False, False, True]
    assert kept[0].reward == {"total": 1.0} and kept[1].reward == {"total": -1.0}


def test_comparisons_that_took_too_long_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retool.stages.eval.outputs.Grader", partial(Grader, seconds=1.0))
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps({"problem": "?", "answer": "3", "output": "\\boxed{9^{9^{9^9}}}"}) + "\n")
    results = grade_outputs(path, tmp_path / "out")
    assert (results["accuracy"], results["timeouts"]) == (0.0, 1)


def test_several_sources_are_measured_apart(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    rows = [{"problem": f"{n}?", "answer": 1, "output": f"\\boxed{{{n}}}", "source": f"set {n}"} for n in (1, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = grade_outputs(path, tmp_path / "out")
    assert {name: found["accuracy"] for name, found in results["sets"].items()} == {"set 1": 1.0, "set 2": 0.0}
