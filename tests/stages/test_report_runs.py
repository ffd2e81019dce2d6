"""A page of whatever runs, evaluations and files of trajectories there are."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from invented_cluster import AHEAD, DIES, EPOCH, SAMPLERS, STEPS, write_times
from parsed_page import Page
from retool.cli.main import cli
from retool.errors import UsageError
from retool.rollout.timeline import Timeline
from retool.runs import RunFolder, read_rows, write_trajectories
from retool.stages.report.recipe import gather, report_runs, run_curves
from retool.stages.report.step_times import typical_step
from retool.types import Author, CallStatus, Problem, Span, ToolCall, Trajectory

PROBLEMS = [Problem(f"p{i}", f"What is {i} times 7?", str(7 * i), "products") for i in range(4)]
FAILED, RAN = ("print(12 * x)", "NameError: name 'x' is not defined"), ("x = 7\nprint(12 * x)", "84")


def told(tokenizer: PreTrainedTokenizerFast, problem: Problem, step: int, sample: int, model: str = "") -> Trajectory:
    """At step 0 wrong and without code; later right, after an error that is put right. All ids are real."""
    spans: list[Span] = []
    calls: list[ToolCall] = []

    def write(author: Author, text: str) -> None:
        ids = tokenizer(text)["input_ids"]
        spans.append(Span(author, ids, text, [-0.25] * len(ids) if author is Author.MODEL else None, step))

    answer = "1"
    if step:
        answer = problem.answer
        for (code, output), status in ((FAILED, CallStatus.ERROR), (RAN, CallStatus.OK)):
            calls.append(ToolCall(len(spans), sum(len(s.ids) for s in spans), code, output, status))
            write(Author.MODEL, f"x is not defined, so: <code>\n{code}\n</code>")
            write(Author.INTERPRETER, f"\n<interpreter>\n{output}\n</interpreter>\n")
    write(Author.MODEL, f"So the answer is \\boxed{{{answer}}}.")
    return Trajectory(
        id=f"a/{step}/{problem.id}/{sample}",
        step=step,
        arm="a",
        seed=0,
        sample=sample,
        group=f"a/{step}/{problem.id}",
        model=model,
        protocol="tags",
        problem=problem,
        prompt_ids=tokenizer(problem.text)["input_ids"],
        spans=spans,
        calls=calls,
        answer=answer,
        correct=answer == problem.answer,
        reward={"total": 1.0 if answer == problem.answer else -1.0},
        timing={"seconds": 2.0, "tool_seconds": 0.5},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> RunFolder:
    """Evaluated at steps 0, 2 and 4, rollouts of steps 1 to 4; of step 4 a record of the learner and a timeline."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "rl")
    for folder in (run.checkpoints, run.trajectories, run.evaluations, run.timelines):
        folder.mkdir(parents=True)
    (run.path / "config.yaml").write_text("seed: 0\n")
    tokenizer.save_pretrained(run.checkpoints / "step-4")
    for step in (0, 2, 4):
        run.write_evaluation(step, [told(tokenizer, problem, step, 0) for problem in PROBLEMS])
    for step in (1, 2, 3, 4):
        run.log(step, {"reward": 0.1 * step, "entropy": 0.5}, {})
        write_trajectories(
            run.trajectories / f"step-{step}.jsonl", [told(tokenizer, PROBLEMS[0], step, s) for s in (0, 1)]
        )
    run.log_alarm(2, "begins", {"name": "entropy", "message": "entropy: 0.001 nats", "advice": "raise the clip"})
    run.log_alarm(3, "ends", {"name": "entropy"})
    learned = told(tokenizer, PROBLEMS[0], 4, 0)
    count = learned.tokens(Author.MODEL)
    np.savez_compressed(
        run.trajectories / "step-4.learner.npz",
        ids=np.array([learned.id]),
        offsets=np.array([0, count]),
        logprobs=np.full(count, -0.35, dtype=np.float32),
        values=np.zeros(0),
        advantages=np.full(count, 0.5, dtype=np.float32),
    )
    timeline = Timeline()
    timeline.add(learned.id, "interpreter call", 1.0, 1.5)
    timeline.add(learned.id, "queue", 1.0, 1.25)
    timeline.add(learned.id, "run", 1.25, 1.5)
    timeline.add(learned.id, "interpreter call", 3.0, 4.0)
    timeline.add(learned.id, "queue", 3.0, 3.0)
    timeline.add(learned.id, "run", 3.0, 4.0)
    (run.timelines / "step-4.json").write_text(timeline.to_json())
    return run


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> list[Path]:
    """Two evaluations that differ in one setting, and a bare file of trajectories."""
    folder = tmp_path_factory.mktemp("evaluations")
    model = folder / "model"
    tokenizer.save_pretrained(model)
    for name, top_p in (("paper", 0.7), ("plain", 1.0)):
        write_trajectories(folder / name / "samples.jsonl", [told(tokenizer, p, 1, 0, str(model)) for p in PROBLEMS])
        results = {"accuracy": 1.0, "ci95": [0.9, 1.0], "problems": 4, "samples": 1}
        results["protocol"] = {"sampling": {"top_p": top_p, "temperature": 1.0}}
        (folder / name / "results.json").write_text(json.dumps(results))
    write_trajectories(folder / "bare.jsonl", [told(tokenizer, p, 0, 0, str(model)) for p in PROBLEMS])
    return [folder / "paper", folder / "plain", folder / "bare.jsonl"]


@pytest.fixture(scope="module")
def page(run: RunFolder, evaluations: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("out") / "report.html"
    report_runs([run.path, *evaluations], out, title="All of it")
    return Page(out.read_text(encoding="utf-8"))


def test_runs_evaluations_and_files_stand_on_one_page(page: Page) -> None:
    assert "<title>All of it</title>" in page.html
    assert set(page.columns["runs"]) == {"rl", "paper", "plain", "bare.jsonl"}
    origins = {(page.columns["runs"][row["run"]], row["origin"], row["step"]) for row in page.rows}
    assert origins == {
        *(("rl", "held-out", step) for step in (0, 2, 4)),
        *(("rl", "rollouts", step) for step in (1, 2, 3, 4)),
        *((name, "evaluation", None) for name in ("paper", "plain", "bare.jsonl")),
    }
    assert len(page.rows) == 3 * 4 + 4 * 2 + 3 * 4


def test_curves_have_intervals_and_start_at_the_first_evaluation(page: Page) -> None:
    rows = page.drawings["charts"]["panel-accuracy"]["data"]["values"]
    assert [(row["step"], row["value"], row["low"], row["high"]) for row in rows] == [
        (0, 0, 0, 0),
        (2, 1, 1, 1),
        (4, 1, 1, 1),
    ]
    mended = page.drawings["charts"]["panel-self_correction.of_failed"]["data"]["values"]
    assert (2, 1.0) in {(row["step"], row["value"]) for row in mended if row["metric"] == "self_correction.of_failed"}
    assert [r["value"] for r in page.drawings["charts"]["panel-reward"]["data"]["values"]] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4]
    )


def test_alarms_and_purposes_come_from_the_run(page: Page) -> None:
    assert "step 2" in page.text and "entropy: 0.001 nats" in page.text and "raise the clip" in page.text
    shares = page.drawings["charts"]["purposes-rl"]["data"]["values"]
    assert {row["moment"] for row in shares} == {"step 4"}
    assert sum(row["calls"] for row in shares) == 8


def test_the_step_that_is_shown_lasts_the_median_of_the_middle_half(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_times(run)
    seconds = {
        row["step"]: sum(number for name, number in row.items() if name.endswith("_seconds"))
        for row in read_rows(run.timings)
    }
    times = typical_step(run, "a")
    middle = [seconds[step] for step in range(STEPS // 4 + 1, STEPS - STEPS // 4 + 1)]
    assert times.seconds == pytest.approx(statistics.median_low(middle))
    assert times.step in range(STEPS // 4 + 1, STEPS - STEPS // 4 + 1)
    assert sum(times.mean.values()) == pytest.approx(statistics.mean(seconds.values()))
    assert times.until_next == pytest.approx(0.2, abs=0.01)


def test_all_work_of_samplers_in_the_step_is_shown_and_no_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_times(run)
    times = typical_step(run, "a")
    began = next(row["began"] for row in read_rows(run.timings) if row["step"] == times.step)
    expected = [r for r in read_rows(run.samplers) if r["ended"] > began and r["began"] < began + times.seconds]
    assert len(times.work) == len(expected) > 50
    assert [(w.sampler, w.kind, w.lost) for w in times.work] == [(r["sampler"], r["did"], r["lost"]) for r in expected]
    assert times.samplers == SAMPLERS and times.ahead == AHEAD
    lost = [work for work in times.work if work.lost]
    assert {work.sampler for work in lost} == {2}
    assert [work.ended for work in lost] == pytest.approx([EPOCH + DIES - began] * len(lost))
    assert {w.name for w in times.work if w.kind == "weights"} == {f"version {times.step - 1}", f"version {times.step}"}


def test_a_run_without_finished_steps_has_no_times(run: RunFolder, page: Page, tmp_path: Path) -> None:
    assert typical_step(RunFolder(tmp_path), "a") is None
    assert 'id="time"' not in page.html


def test_evaluations_say_how_many_errors_were_put_right_and_which_settings_differ(page: Page) -> None:
    assert "self-corrected" in page.text
    assert "Not like for like" in page.text
    assert "sampling.top_p" in page.text
    assert "sampling.temperature" not in page.text


def test_what_the_learner_made_of_a_trajectory_is_beside_what_was_sampled(page: Page) -> None:
    by_id = {page.read(row)["id"]: row for row in page.rows if row["origin"] == "rollouts" and row["step"] == 4}
    learned, other = by_id["a/4/p0/0"], by_id["a/4/p0/1"]
    tokens = page.tokens(learned)
    assert set(tokens["logprobs"]) == {-25}
    assert set(tokens["gap"]) == {-1000}
    assert set(tokens["advantages"]) == {50}
    assert learned["gap"] == pytest.approx(0.1, abs=1e-4)
    assert [page.read(row)["in_loss"] for row in (learned, other)] == [True, False]
    assert "gap" not in page.tokens(other)
    assert page.read(next(row for row in page.rows if row["origin"] == "held-out"))["in_loss"] is None


def test_tokens_have_their_texts_and_prompts_are_readable(page: Page) -> None:
    for row in page.rows:
        shown = page.read(row)
        joined = "".join(page.tokens(row)["pieces"])
        assert joined.endswith("}.")
        for span in shown["spans"]:
            assert all((passage.get("text") or passage["code"]) in joined for passage in span["passages"])
        assert shown["prompt"] == page.columns["problems"][row["problem"]]["text"]


def test_calls_have_the_seconds_of_the_timeline(page: Page) -> None:
    shown = next(
        page.read(row) for row in page.rows if page.read(row)["id"] == "a/4/p0/0" and row["origin"] == "rollouts"
    )
    assert [(call["queue"], call["run"]) for call in shown["calls"]] == [(0.25, 0.25), (0.0, 1.0)]
    assert shown["timing"] == {"seconds": 2.0, "tool_seconds": 0.5}


def test_self_corrections_are_marked(page: Page) -> None:
    row = next(row for row in page.rows if row["corrected"])
    (mended,) = page.read(row)["corrections"]
    assert (mended["failed"], mended["fixed"]) == (0, 1)
    assert "NameError" in mended["error"]


def test_without_room_the_ends_of_training_stay_and_the_page_says_what_is_missing(
    run: RunFolder, tmp_path: Path
) -> None:
    found = gather({"rl": run}, {}, page_bytes=1_104_000)
    kept = found.archive
    kept.chunks()
    assert 0 < len(kept) < 20
    assert f"{len(kept)} of 20 trajectories are in this page" in kept.notes()[0]
    steps = {row["step"] for row in found.curves if row["metric"] == "accuracy"}
    assert steps == {0, 2, 4}  # numbers are of all trajectories, shown or not


def test_a_record_of_another_update_is_refused(run: RunFolder, tokenizer, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "rl")
    other.trajectories.mkdir(parents=True)
    (other.path / "config.yaml").write_text("seed: 0\n")
    write_trajectories(other.trajectories / "step-4.jsonl", [told(tokenizer, PROBLEMS[0], 4, 0)])
    record = dict(np.load(run.trajectories / "step-4.learner.npz"))
    shorter = {"offsets": record["offsets"] - [0, 1], "logprobs": record["logprobs"][1:]}
    np.savez_compressed(other.trajectories / "step-4.learner.npz", **record | shorter)
    with pytest.raises(UsageError, match="not of the same update"):
        report_runs([other.path], tmp_path / "report.html")


def test_evaluations_of_other_problems_are_not_compared_though_their_ids_are_alike(tokenizer, tmp_path: Path) -> None:
    other = [replace(problem, text=f"Another: {problem.text}") for problem in PROBLEMS]
    for name, problems in (("a", PROBLEMS), ("b", other), ("c", PROBLEMS)):
        write_trajectories(tmp_path / f"{name}.jsonl", [told(tokenizer, p, name == "c", 0) for p in problems])
    report_runs([tmp_path / f"{name}.jsonl" for name in "abc"], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"Difference on the same problems.*a\.jsonl\s*c\.jsonl\s*4\s*\+1\.00", page.text, re.DOTALL)
    assert not re.search(r"a\.jsonl\s*b\.jsonl\s*4", page.text)


def test_tokens_keep_the_spaces_that_some_tokenizers_leave_out_at_the_beginning(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"▁So": 0, "▁x": 1, "=": 2, "▁7": 3}, unk_token="="))
    words.decoder = decoders.Metaspace()
    (tmp_path / "model").mkdir()
    words.save(str(tmp_path / "model" / "tokenizer.json"))
    trajectory = Trajectory(
        id="t", step=0, arm="a", seed=0, sample=0, group="t", model=str(tmp_path / "model"), protocol="tags",
        problem=PROBLEMS[0], prompt_ids=[0], spans=[Span(Author.MODEL, [0, 1, 2, 3], "So x= 7", [-0.1] * 4)],
    )  # fmt: skip
    report_runs([write_trajectories(tmp_path / "samples.jsonl", [trajectory])], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tokens(page.rows[0])["pieces"] == [" So", " x", "=", " 7"]


def test_without_a_tokenizer_tokens_are_shown_by_their_ids(tokenizer, tmp_path: Path) -> None:
    bare = told(tokenizer, PROBLEMS[0], 0, 0, model="nowhere/to-be-found")
    report_runs([write_trajectories(tmp_path / "samples.jsonl", [bare])], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tokens(page.rows[0])["pieces"] == bare.response_ids
    assert page.read(page.rows[0])["prompt"] is None


def test_the_tokenizer_of_runs_that_were_moved_is_found(tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "runs" / "mine" / "rl" / "checkpoints" / "step-4")
    told_there = told(tokenizer, PROBLEMS[0], 0, 0, model="runs/mine/rl/checkpoints/step-4")
    samples = write_trajectories(tmp_path / "runs" / "mine" / "eval" / "samples.jsonl", [told_there])
    report_runs([samples.parent], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "".join(page.tokens(page.rows[0])["pieces"]) == told_there.spans[0].text


def test_where_nothing_is_called_no_share_of_calls_is_drawn(run: RunFolder, tmp_path: Path) -> None:
    text_only = RunFolder(tmp_path / "text" / "rl")
    text_only.path.mkdir(parents=True)
    text_only.log(1, {"ok_call_rate": 0.0, "calls_per_response": 0.0, "reward": -1.0}, {})
    text_only.log(2, {"ok_call_rate": 0.5, "calls_per_response": 2.0, "reward": -1.0}, {})
    rows = run_curves(text_only, "text", {})
    assert [row["value"] for row in rows if row["metric"] == "ok_call_rate"] == [None, 0.5]


def test_texts_of_another_system_are_graded_and_shown(tmp_path: Path) -> None:
    rows = [
        {"problem": p.text, "answer": p.answer, "output": [f"\\boxed{{{7 * i}}}", "\\boxed{1}"]}
        for i, p in enumerate(PROBLEMS)
    ]
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report_runs([tmp_path / "others.jsonl"], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [row["correct"] for row in page.rows] == [1, 0] * 4
    assert {row["length"] for row in page.rows} == {None}
    assert page.drawings["charts"]["accuracy"]["data"]["values"][0]["accuracy"] == 0.5


def test_a_run_without_trajectories_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rl" / "trajectories").mkdir(parents=True)
    (tmp_path / "rl" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UsageError, match="holds no trajectories yet"):
        report_runs([tmp_path / "rl"], tmp_path / "report.html")


def test_a_folder_that_holds_runs_names_them(run: RunFolder, evaluations: list[Path], tmp_path: Path) -> None:
    (run.path.parent / "sft" / "trajectories").mkdir(parents=True)
    (run.path.parent / "sft" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UsageError, match=f"neither a run .* it holds some: name {run.path}$"):
        report_runs([run.path.parent], tmp_path / "report.html")
    with pytest.raises(UsageError, match=r"nor an evaluation \(samples\.jsonl\)$"):
        report_runs([tmp_path], tmp_path / "report.html")


def test_the_command_writes_the_page_and_says_how_large_it_is(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = CliRunner().invoke(
        cli, ["report", str(run.path), "--out", str(out), "--title", "One run", "--max-mb", "5"]
    )
    assert result.exit_code == 0, result.output
    assert "MB" in result.output
    assert "<title>One run</title>" in out.read_text(encoding="utf-8")
