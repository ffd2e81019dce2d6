"""Two evaluations side by side, from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from retool.errors import UsageError
from retool.stages.compare.recipe import compare_evaluations
from retool.stages.compare.table import comparison_lines
from retool.stages.eval.outputs import grade_outputs


def evaluation(
    folder: Path, name: str, answers: Sequence[int], reference: int = 1, source: str | None = None, **protocol: Any
) -> Path:
    """An evaluation in which problem n was answered with `answers[n]`."""
    rows = [
        {"problem": f"problem {n}", "answer": reference, "output": f"\\boxed{{{answer}}}", "model": name}
        | ({"source": source if n % 2 else "other"} if source else {})
        for n, answer in enumerate(answers)
    ]
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = grade_outputs(path, folder / name)
    results["protocol"] |= protocol
    (folder / name / "results.json").write_text(json.dumps(results))
    return folder / name


def test_the_difference_is_that_of_the_shared_problems(tmp_path: Path) -> None:
    first = evaluation(tmp_path, "old", [0, 0, 0, 0, 0, 0, 1, 1, 1])
    second = evaluation(tmp_path, "new", [1, 1, 1, 1, 1, 1, 1, 0])
    found = compare_evaluations(first, second)
    assert [system["model"] for system in found["systems"]] == ["old", "new"]
    row = found["comparison"]
    assert (row["problems"], row["only"]) == (8, [1, 0])
    assert (row["better"], row["worse"], row["equal"]) == (6, 1, 1)
    assert row["difference"] == 5 / 8 and row["p_value"] == pytest.approx(2 * (1 + 7) / 2**7)


def test_settings_that_differ_are_listed_and_those_that_do_not_matter_are_not(tmp_path: Path) -> None:
    rollout = {"max_calls": 8, "rows": 64}
    first = evaluation(tmp_path, "old", [1, 0], sampling={"top_p": 0.7}, rollout=rollout, seed=0)
    second = evaluation(tmp_path, "new", [1, 1], sampling={"top_p": 0.6}, rollout=rollout | {"rows": 8}, seed=1)
    found = compare_evaluations(first, second)
    assert found["protocol"] == {"sampling.top_p": [0.7, 0.6]}
    text = "\n".join(comparison_lines(found))
    assert "the protocols differ" in text and "sampling.top_p: 0.7 → 0.6" in text


def test_other_problems_and_another_grader_are_settings_that_differ(tmp_path: Path) -> None:
    first = evaluation(tmp_path, "old", [1, 0, 1], grader={"name": "math-verify", "version": "0.8.0"})
    second = evaluation(tmp_path, "new", [1, 1], reference=2)
    found = compare_evaluations(first, second)
    assert {"grader.version", "problems.problems.hash", "problems.problems.problems"} <= found["protocol"].keys()
    assert found["relabelled"] == 2
    text = "\n".join(comparison_lines(found))
    assert "not shared, and left out: 1 problems of the first, 0 of the second" in text
    assert "2 shared problems have another reference answer" in text


def test_the_same_protocol_is_called_that_and_an_unknown_one_unknown(tmp_path: Path) -> None:
    first, second = evaluation(tmp_path, "old", [1, 0]), evaluation(tmp_path, "new", [1, 1])
    assert "the protocols are the same" in "\n".join(comparison_lines(compare_evaluations(first, second)))
    (second / "results.json").unlink()
    unknown = compare_evaluations(first, second / "samples.jsonl")
    assert unknown["protocol"] is None
    assert "the protocols are unknown" in "\n".join(comparison_lines(unknown))


def test_each_set_is_compared_apart(tmp_path: Path) -> None:
    first = evaluation(tmp_path, "old", [0, 0, 0, 0], source="sums")
    second = evaluation(tmp_path, "new", [0, 1, 0, 1], source="sums")
    found = compare_evaluations(first, second)
    assert {name: row["difference"] for name, row in found["sets"].items()} == {"other": 0.0, "sums": 1.0}


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    first = evaluation(tmp_path, "old", [1])
    with pytest.raises(UsageError, match=r"is no evaluation: expected a folder with samples\.jsonl"):
        compare_evaluations(first, tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="holds no samples"):
        compare_evaluations(first, tmp_path / "empty.jsonl")


def test_results_that_are_no_json_are_named(tmp_path: Path) -> None:
    broken = evaluation(tmp_path, "old", [1, 0])
    (broken / "results.json").write_text("{")
    with pytest.raises(UsageError, match=r"old/results\.json is not JSON"):
        compare_evaluations(broken, evaluation(tmp_path, "new", [1, 1]))
