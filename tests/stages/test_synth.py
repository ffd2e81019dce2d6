"""The synthesis stage on a handful of solutions: real sandbox, real grader, reproducible files, an honest report."""

import asyncio
import json

import pytest

from retool.config.schema import Config
from retool.config.synth import SynthConfig
from retool.errors import RetoolError, UsageError
from retool.puzzles.generate import generate
from retool.stages.synth import synthesize
from retool.types import CallStatus, Kind, Problem, Trace

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
]
ROWS = [(Problem(f"row-{n}", q, a, "hand"), s) for n, (q, a, s) in enumerate(SOLUTIONS)]


def run(rows, out_dir, seed=0, code_share=1.0):
    config = Config(seed=seed, synth=SynthConfig(code_share=code_share))
    report = asyncio.run(synthesize(config, rows, out_dir))
    return report, read(out_dir / "traces.jsonl"), read(out_dir / "text_traces.jsonl")


def read(path):
    return [Trace.from_json(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def test_outputs_are_real_and_the_report_accounts_for_every_row(tmp_path):
    report, traces, _ = run(ROWS, tmp_path)
    assert [trace.problem.id for trace in traces] == ["row-0", "row-1", "row-2"]
    results = [segment for segment in traces[0].segments if segment.kind is Kind.RESULT]
    assert [result.text.strip() for result in results] == ["24.0", "12.0"]
    assert all(result.status is CallStatus.OK for result in results)
    written = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert written == report.to_json()
    assert written["sources"] == 7 and written["accepted"] == written["code"] == 3 and written["calls"] == 4
    assert written["rejected"] == {"no_rule": 1, "output_differs": 1, "wrong_answer": 1, "code_failed": 1}
    assert written["examples"]["code_failed"][0]["id"] == "row-6"
    assert "ZeroDivisionError" in written["examples"]["code_failed"][0]["detail"]
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "3 traces, 3 with code" in card and "| wrong_answer |" in card


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
    assert names == ["README.md", "report.json", "text_traces.jsonl", "traces.jsonl"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


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


def test_no_accepted_trace_is_an_error_that_says_why_and_writes_nothing(tmp_path):
    with pytest.raises(RetoolError, match=r"no trace was accepted of 1 solutions.*row-3"):
        run([ROWS[3]], tmp_path / "out")
    assert not (tmp_path / "out").exists()
