"""`retool analyze` on whatever runs, evaluations and files there are."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyarrow import parquet

from chat_server import chat_server, completion
from planted import failed, ran, respond
from retool.cli.main import cli
from retool.config.analysis import AnalysisConfig
from retool.config.endpoint import EndpointConfig
from retool.errors import UsageError
from retool.runs import write_trajectories
from retool.stages.analyze.recipe import analyze_runs
from retool.stages.analyze.sources import labels
from retool.stages.analyze.tables import COLUMNS

BROKEN, FIXED = failed("print(10 / zero)"), ran("zero = 2\nprint(10 / zero)")
DOCS = Path(__file__).parents[2] / "docs" / "analysis.md"


def corrected(**settings):
    return respond("First:", BROKEN, "zero is not defined, so:", FIXED, "Done.", **settings)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose step 0 never calls, and whose step 4 corrects itself."""
    folder = tmp_path / "run"
    (folder / "trajectories").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    texts = [respond("No.", problem=name, correct=False, arm="x/heldout") for name in "abc"]
    write_trajectories(folder / "eval" / "step-0.jsonl", texts)
    write_trajectories(
        folder / "eval" / "step-4.jsonl", [corrected(problem=name, step=4, arm="x/heldout") for name in "abc"]
    )
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The same problems answered in words, a third of them right."""
    texts = [respond("It is 1.", problem=name, correct=name == "a", arm="eval") for name in "abc"]
    return write_trajectories(tmp_path / "text" / "samples.jsonl", texts).parent


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_gives_curves_and_an_evaluation_figures(run: Path, evaluation: Path) -> None:
    found = analyze_runs([run, evaluation])
    assert {(row["arm"], row["step"]) for row in found["curves"]} == {("run", 0), ("run", 4), ("text", 0)}
    assert {row["value"] for row in found["curves"] if row["metric"] == "code_ratio" and row["step"] == 4} == {1.0}
    assert list(found["evaluations"]) == ["text"]
    assert found["evaluations"]["text"]["accuracy"] == pytest.approx(1 / 3)


def test_arms_are_compared_on_the_problems_that_they_share(run: Path, evaluation: Path) -> None:
    (row,) = analyze_runs([run, evaluation])["comparisons"]
    assert (row["first"], row["second"], row["problems"]) == ("run", "text", 3)
    assert (row["first_accuracy"], row["second_accuracy"]) == (1.0, pytest.approx(1 / 3))
    assert row["difference"] == pytest.approx(-2 / 3) and row["low"] <= row["difference"] <= row["high"]
    assert (row["better"], row["worse"], row["equal"]) == (0, 2, 1)


def test_every_table_is_written_with_its_columns(run: Path, evaluation: Path, tmp_path: Path) -> None:
    found = analyze_runs([run, evaluation], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "analysis.json").read_text()) == found
    tables = tmp_path / "out" / "tables"
    for name, columns in COLUMNS.items():
        with (tables / f"{name}.csv").open(newline="") as file:
            assert next(csv.reader(file)) == list(columns)
        assert parquet.read_table(tables / f"{name}.parquet").column_names == list(columns)
    assert len(rows_of(tables / "responses.csv")) == 9
    calls = rows_of(tables / "calls.csv")
    assert [(call["status"], call["error_type"], call["corrects"]) for call in calls] == [
        ("error", "NameError", ""),
        ("ok", "", "0"),
    ] * 3
    assert [row["diagnosis"] for row in rows_of(tables / "corrections.csv")] == ["zero is not defined, so:"] * 3
    assert parquet.read_table(tables / "calls.parquet")["purpose"].to_pylist() == ["calculation"] * 6


def test_a_column_has_one_type_whatever_the_rows(run: Path, evaluation: Path, tmp_path: Path) -> None:
    texts = [{"problem": "What is 6 times 7?", "answer": 42, "output": "It is \\boxed{42}."}]
    (tmp_path / "others.jsonl").write_text(json.dumps(texts[0]) + "\n")
    for name, paths in (("much", [run, evaluation]), ("little", [tmp_path / "others.jsonl"])):
        analyze_runs(paths, tmp_path / name)
    for name in COLUMNS:
        much, little = (
            parquet.read_schema(tmp_path / kind / "tables" / f"{name}.parquet") for kind in ("much", "little")
        )
        assert much.equals(little), name


def test_texts_come_back_from_a_table_as_they_were(tmp_path: Path) -> None:
    words = 'It is "zero",\nnot défined — 👩‍👩‍👧; I fix it:'
    text = respond("First:", BROKEN, words, FIXED, problem='a,"b"\nc')
    analyze_runs([write_trajectories(tmp_path / "samples.jsonl", [text])], tmp_path / "out")
    (row,) = rows_of(tmp_path / "out" / "tables" / "corrections.csv")
    assert (row["diagnosis"], row["problem"]) == (words, 'a,"b"\nc')


def test_results_that_the_model_rejects_are_listed_apart(tmp_path: Path) -> None:
    code = "print(len([k for k in range(1, {}) if k % 3 == 0]))"
    text = respond(ran(code.format("30"), "9"), "Wait, 9 is wrong: 30 counts.", ran(code.format("30 + 1"), "10"))
    found = analyze_runs([write_trajectories(tmp_path / "samples.jsonl", [text])])
    (row,) = found["revisions"]
    assert (row["rejected"], row["revised"], row["result"]) == (0, 1, "9")
    assert "+print(len([k for k in range(1, 30 + 1) if k % 3 == 0]))" in row["diff"]
    assert found["corrections"] == []


def test_arms_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    code, text, other = tmp_path / "code" / "rl", tmp_path / "text" / "rl", tmp_path / "text" / "eval"
    assert labels([code]) == {code: "rl"}
    assert labels([code, text, other]) == {code: "code/rl", text: "text/rl", other: "eval"}
    assert labels([tmp_path / "code", code]) == {tmp_path / "code": "code", code: "rl"}


def test_every_table_and_column_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    missing = [(name, column) for name, columns in COLUMNS.items() for column in columns if f"`{column}`" not in text]
    assert missing == [] and all(f"`{name}`" in text for name in COLUMNS)


def test_a_file_with_several_arms_tells_them_apart(tmp_path: Path) -> None:
    both = [corrected(arm="code"), respond("No.", arm="text", correct=False)]
    found = analyze_runs([write_trajectories(tmp_path / "both.jsonl", both)])
    assert list(found["evaluations"]) == ["both.jsonl/code", "both.jsonl/text"]
    assert [row["difference"] for row in found["comparisons"]] == [-1.0]


def test_a_file_with_several_steps_has_curves(tmp_path: Path) -> None:
    steps = [corrected(step=step, problem=str(step)) for step in (0, 10, 20)]
    found = analyze_runs([write_trajectories(tmp_path / "steps.jsonl", steps)])
    assert found["evaluations"] == {}
    assert [row["step"] for row in found["curves"] if row["metric"] == "self_correction.diagnosed"] == [0, 10, 20]


def test_texts_of_another_system_are_graded_and_analysed(tmp_path: Path) -> None:
    output = (
        "Let me run it.\n<code>\nprint(1 +)\n</code>\n<interpreter>\nSyntaxError: invalid syntax\n</interpreter>\n"
        "A typo; I correct it.\n<code>\nprint(1 + 1)\n</code>\n<interpreter>\n2\n</interpreter>\nSo \\boxed{2}."
    )
    rows = [{"problem": "1 + 1?", "answer": "2", "output": [output, "\\boxed{3}"]}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = analyze_runs([tmp_path / "texts.jsonl"])
    assert found["evaluations"]["texts.jsonl"]["accuracy"] == 0.5
    (case,) = found["corrections"]
    assert (case["failed"], case["fixed"], case["diagnosed"], case["error_type"]) == (0, 1, True, "SyntaxError")


def test_a_judge_is_asked_once_about_each_call_that_is_drawn(run: Path, tmp_path: Path) -> None:
    async def scenario() -> tuple[dict, list]:
        async with chat_server(lambda body: completion("verification")) as server:
            judge = EndpointConfig(url=server.url, model="critic")
            config = AnalysisConfig(judge=judge, judge_calls=4)
            for _ in range(2):
                found = await asyncio.to_thread(analyze_runs, [run], tmp_path / "out", config)
            return found, server.requests

    found, requests = asyncio.run(scenario())
    assert (found["agreement"]["calls"], found["agreement"]["agreed"], found["agreement"]["model"]) == (
        4,
        0.0,
        "critic",
    )
    assert found["agreement"]["confusion"] == {"calculation": {"verification": 4}}
    assert len(requests) == 4
    judged = rows_of(tmp_path / "out" / "tables" / "judged.csv")
    assert {(row["arm"], row["step"], row["rules"], row["judge"]) for row in judged} == {
        ("run", "4", "calculation", "verification")
    }


def test_without_a_folder_the_analysis_is_printed(run: Path) -> None:
    result = CliRunner().invoke(cli, ["analyze", str(run)])
    assert json.loads(result.stdout)["purpose_changes"] == []
    assert CliRunner().invoke(cli, ["analyze", "nowhere"]).exit_code == 2


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a run .* nor an evaluation"):
        analyze_runs([tmp_path])
    (tmp_path / "rows.jsonl").write_text('{"text": "hello"}\n')
    with pytest.raises(UsageError, match=r"neither a trajectory .* nor a text of another system"):
        analyze_runs([tmp_path / "rows.jsonl"])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UsageError, match="holds no"):
        analyze_runs([tmp_path / "none.jsonl"])
