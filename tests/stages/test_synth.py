"""A synthesis by rules on a handful of solutions: real sandbox, real grader, reproducible files, an honest report."""

import asyncio
import json
import math

import pytest
from click.testing import CliRunner

from retool.cli.main import cli
from retool.config.schema import Config, ProtocolConfig
from retool.config.synth import SynthConfig
from retool.data.load import load_problems
from retool.errors import RetoolError, UsageError
from retool.protocol import make_protocol
from retool.puzzles.generate import generate
from retool.stages.synth import synthesize
from retool.types import CallStatus, Kind, Problem, Trace
from small_tokenizers import TOKENIZERS

SOLUTIONS = [
    (
        "Ada sells half of 48 pencils at $0.50. How much?",
        "12",
        "She sells 48/2 = <<48/2=24>>24.\n24*.5 = $<<24*.5=12>>12.",
    ),
    ("Bo reads 3 pages on each of 7 days. How many?", "21", "He reads 3 x 7 = <<3*7=21>>21 pages."),
    ("Cy has 1,200 beads and buys 300. How many?", "1500", "She has 1,200+300 = <<1200+300=1500>>1,500 beads."),
    ("Twice a number is 18. Which?", "9", "2x = 18, so x = 9."),
    ("Di shares 10 plums among 3. How many each?", "3", "Each gets 10/3 = <<10/3=3>>3, and 1 is left."),
    ("Ed runs 2 miles, twice. How many feet?", "21120", "He runs 2*2 = <<2*2=4>>4 miles."),
    ("Flo divides by zero.", "0", "5/0 = <<5/0=0>>0"),
    ("Gus knows it.", "5", "It is 5."),
]
ROWS = [(Problem(f"row-{n}", q, a, "hand"), s) for n, (q, a, s) in enumerate(SOLUTIONS)]


def run(rows, out_dir, seed=0, loaded=None, **settings):
    config = Config(seed=seed, synth=SynthConfig(**settings))
    report = asyncio.run(synthesize(config, rows, out_dir, loaded))
    return report, read(out_dir / "traces.jsonl"), read(out_dir / "text_traces.jsonl")


def read(path):
    return [Trace.from_json(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def dropped(out_dir, stage):
    lines = (out_dir / "stages" / f"{stage}.dropped.jsonl").read_text("utf-8").splitlines()
    return {row["problem"]["id"]: row for row in map(json.loads, lines)}


def test_outputs_are_real_and_the_report_accounts_for_every_row(tmp_path):
    report, traces, _ = run(ROWS, tmp_path)
    assert [trace.problem.id for trace in traces] == ["row-0", "row-1", "row-2", "row-3"]
    results = [segment for segment in traces[0].segments if segment.kind is Kind.RESULT]
    assert [result.text.strip() for result in results] == ["24.0", "12.0"]
    assert all(result.status is CallStatus.OK for result in results)
    written = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert written == json.loads(json.dumps(report.to_json()))
    assert written["sources"] == 8 and written["accepted"] == written["code"] == 4 and written["calls"] == 5
    assert written["by_calls"] == {"1": 3, "2": 1}
    assert written["rejected"] == {"no_rule": 1, "output_differs": 1, "wrong_answer": 1, "code_failed": 1}
    assert written["stages"]["4-executed"] == {
        "taken": 6,
        "kept": 4,
        "dropped": {"output_differs": 1, "code_failed": 1},
    }
    assert written["examples"]["code_failed"][0]["id"] == "row-6"
    assert "ZeroDivisionError" in written["examples"]["code_failed"][0]["detail"]
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "4 traces, 4 with code" in card and "| wrong_answer |" in card and "| 2 | 1 |" in card


def test_every_stage_lists_what_it_kept_and_what_it_dropped(tmp_path):
    run(ROWS, tmp_path)
    stages = ("1-sources", "2-filtered", "3-rewritten", "4-executed", "5-verified", "5-balanced")
    files = {path.name for path in (tmp_path / "stages").iterdir()}
    assert files == {f"{stage}{end}" for stage in stages for end in (".jsonl", ".dropped.jsonl")} | {"settings.json"}
    assert dropped(tmp_path, "2-filtered").keys() == {"row-5"}
    assert dropped(tmp_path, "3-rewritten").keys() == {"row-7"}
    assert dropped(tmp_path, "4-executed").keys() == {"row-4", "row-6"}
    counts = [len((tmp_path / "stages" / f"{stage}.jsonl").read_text("utf-8").splitlines()) for stage in stages]
    assert counts == [8, 7, 6, 4, 4, 4]


def test_the_text_only_arm_has_the_same_problems(tmp_path):
    rows = generate(66, seed=0)
    report, traces, texts = run(rows, tmp_path, code_share=0.5)
    assert report.accepted == 66
    assert [t.problem for t in traces] == [t.problem for t in texts] == [problem for problem, _ in rows]
    assert not any(trace.has_code for trace in texts)
    assert 20 <= sum(trace.has_code for trace in traces) == report.code <= 46
    assert all(trace in texts for trace in traces if not trace.has_code)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    rows = generate(44, seed=1)
    for name in ("a", "b"):
        run(rows, tmp_path / name, seed=7, code_share=0.5)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["README.md", "config.yaml", "report.json", "stages", "text_traces.jsonl", "traces.jsonl"]
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_who_gets_code_does_not_depend_on_the_rows_beside_it(tmp_path):
    rows = generate(44, seed=1)
    _, all_traces, _ = run(rows, tmp_path / "all", code_share=0.5)
    _, some_traces, _ = run(rows[::2], tmp_path / "some", code_share=0.5)
    assert some_traces == all_traces[::2]


def test_without_solutions_there_is_nothing_to_rewrite(tmp_path):
    with pytest.raises(UsageError, match="none of the 1 rows has a worked solution"):
        run([(ROWS[0][0], None)], tmp_path)
    with pytest.raises(UsageError):
        run([], tmp_path)


def test_no_accepted_trace_is_an_error_that_says_why(tmp_path):
    with pytest.raises(RetoolError, match=r"no trace was accepted of 1 solutions.*row-7"):
        run([ROWS[7]], tmp_path / "out")
    assert not (tmp_path / "out" / "traces.jsonl").exists()


def test_an_evaluation_set_is_kept_out_and_each_hit_names_its_twin(tmp_path):
    held_out = tmp_path / "held_out.jsonl"
    question = "Someone else wonders: " + SOLUTIONS[2][0].upper()
    rows = [("h1", question, "1500"), ("h2", SOLUTIONS[3][0], "9")]
    lines = [json.dumps({"id": identity, "problem": text, "answer": answer}) for identity, text, answer in rows]
    held_out.write_text("\n".join(lines))
    report, traces, _ = run(ROWS[:4], tmp_path / "out", decontaminate=(str(held_out),), ngram=8)
    assert [trace.problem.id for trace in traces] == ["row-0", "row-1"]
    assert report.rejected["contaminated"] == 2
    hits = dropped(tmp_path / "out", "1-sources")
    assert "held_out/h1" in hits["row-2"]["detail"] and "cy has 1,200 beads" in hits["row-2"]["detail"]
    assert hits["row-3"]["detail"].startswith("the whole text: shared with held_out/h2, 'Twice a number is 18. Which?'")


def test_what_never_came_in_is_counted_too(tmp_path):
    source = tmp_path / "rows.jsonl"
    rows = [{"problem": q, "answer": a, "solution": s} for q, a, s in SOLUTIONS[:3]]
    rows += [rows[0], rows[1] | {"answer": "22"}, {"problem": "Why?", "answer": math.nan}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_problems(str(source), skip_incomplete=True)
    report, traces, _ = run(loaded.rows, tmp_path / "out", loaded=loaded.report)
    assert report.rejected == {"duplicate": 1, "conflicting_answers": 2, "incomplete": 1}
    assert report.sources == len(rows) == 6 and len(traces) == report.problems == 2


def test_balance_limits_calls_and_how_many_traces_have_the_same_number(tmp_path):
    report, traces, _ = run(ROWS, tmp_path / "short", max_calls=1)
    assert report.rejected["too_many_calls"] == 1 and report.by_calls == {1: 3}
    report, traces, _ = run(ROWS, tmp_path / "even", per_calls=1)
    assert report.rejected["over_quota"] == 2 and report.by_calls == {1: 1, 2: 1}
    rest = [row for row in ROWS if row[0].id in ("row-0", traces[-1].problem.id, "row-7")]
    assert run(rest, tmp_path / "again", per_calls=1)[1] == traces


def test_foreign_solutions_with_calls_keep_them_and_get_real_outputs(tmp_path):
    call = "<code>\n```python\nprint({})\n```\n</code>\n<interpreter>\n{}\n</interpreter>\n"
    rows = [
        ("41 * 3?", "123", "We run it.\n" + call.format("41 * 3", "123.0") + "<answer>\n\\boxed{123}\n</answer>"),
        ("41 * 4?", "164", "We run it.\n" + call.format("41 * 4", "163") + "So 163, or rather \\boxed{164}."),
        ("41 * 5?", "200", "We run it.\n" + call.format("41 * 5", "205") + "So \\boxed{205}."),
    ]
    sources = [(Problem(f"p{n}", q, a, "hand"), s) for n, (q, a, s) in enumerate(rows)]
    report, traces, texts = run(sources, tmp_path, code_share=0.0)
    assert [segment.text for segment in traces[0].segments] == ["We run it.", "print(41 * 3)", "123", "\\boxed{123}"]
    assert report.rejected == {"wrong_answer": 1, "output_differs": 1} and not texts


@pytest.mark.parametrize("name", ["tags", "native", "fenced"])
def test_the_traces_train_in_every_protocol(name, tmp_path):
    _, traces, _ = run(ROWS, tmp_path)
    protocol = make_protocol(ProtocolConfig(name=name), TOKENIZERS["special"])
    for trace in traces:
        rendered = protocol.render(trace)
        results = [span.text for span in rendered.spans if span.author == "interpreter"]
        assert len(results) == sum(segment.kind is Kind.CODE for segment in trace.segments)


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path):
    odd = (Problem("odd", "What \ud800?", "7", "hand"), "Nobody knows.")
    report, _, _ = run([ROWS[0], odd], tmp_path)
    assert report.rejected == {"no_answer": 1}
    assert json.loads((tmp_path / "report.json").read_bytes())["examples"]["no_answer"][0]["problem"] == "What \ud800?"


def test_the_command_line_takes_a_source_and_sets_to_keep_out(tmp_path):
    source, held_out = tmp_path / "rows.jsonl", tmp_path / "held_out.jsonl"
    rows = [{"question": q, "answer": f"{s}\n#### {a}"} for q, a, s in SOLUTIONS[:3]]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out.write_text(json.dumps({"problem": SOLUTIONS[1][0], "answer": "21"}))
    words = ["synth", "synth.max_calls=2", "--source", source, "--mapping", "gsm8k", "--rewrite", "rules"]
    words += ["--decontaminate", held_out, "--out", tmp_path / "out"]
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert "2 traces of 3 solutions" in result.output and "1 rejected: the problem is one of an eval" in result.output
    assert len(read(tmp_path / "out" / "traces.jsonl")) == 2
