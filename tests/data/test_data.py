"""Problems from files: mapped, de-duplicated, and refused with the place of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retool.data.jsonl import read_jsonl, write_jsonl
from retool.data.load import check_disjoint, load_problems
from retool.errors import RetoolError, UsageError
from retool.types import Problem


def rows_file(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_default_columns(tmp_path: Path) -> None:
    loaded = load_problems(rows_file(tmp_path, {"problem": "1 + 1?", "answer": 2, "solution": "It is 2.", "id": "a"}))
    assert loaded.rows == [(Problem("a", "1 + 1?", "2", "rows"), "It is 2.")]


def test_gsm8k_as_published_and_flattened(tmp_path: Path) -> None:
    published = {"question": "How many?", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"}
    flattened = {"problem": "How many more?", "answer": "24", "solution": "48/2 = <<48/2=24>>24"}
    loaded = load_problems(rows_file(tmp_path, published, flattened), "gsm8k")
    assert [(p.text, p.answer, s) for p, s in loaded.rows] == [
        ("How many?", "1024", "48/2 = <<48/2=24>>24"),
        ("How many more?", "24", "48/2 = <<48/2=24>>24"),
    ]


def test_dapo_is_unwrapped_and_each_prompt_counted_once(tmp_path: Path) -> None:
    text = (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\nFind x.\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )
    row = {
        "prompt": [{"role": "user", "content": text}],
        "reward_model": {"ground_truth": "34", "style": "rule"},
        "extra_info": {"index": "i1"},
    }
    loaded = load_problems(rows_file(tmp_path, *[row] * 100), "dapo-math-17k")
    assert loaded.problems == [Problem("i1", "Find x.", "34", "rows")]
    assert (loaded.report.read, loaded.report.duplicates) == (100, 99)


def test_problems_whose_copies_disagree_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        {"problem": p, "answer": a} for p, a in (("Find x.", "1"), ("find  X.", "2"), ("Find x.", "1"), ("y?", "3"))
    ]
    loaded = load_problems(rows_file(tmp_path, *rows))
    assert [problem.text for problem in loaded.problems] == ["y?"]
    assert loaded.report.conflicts == 1
    assert loaded.report.conflict_examples[0]["answers"] == ["1", "2"]


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"q": {"text": "1 + 1?"}, "final": "2", "why": "so"})
    loaded = load_problems(path, "problem=q.text,answer=final,solution=why")
    assert (loaded.problems[0].text, loaded.problems[0].answer, loaded.rows[0][1]) == ("1 + 1?", "2", "so")
    for mapping, message in (("gsm9k", "ready ones are default, gsm8k"), ("problem=q", "both a problem and an answer")):
        with pytest.raises(UsageError, match=message):
            load_problems(path, mapping)


def test_ids_do_not_change_when_rows_move(tmp_path: Path) -> None:
    rows = [{"problem": f"{n} + 1?", "answer": n + 1} for n in range(3)]
    forward = {p.text: p.id for p in load_problems(rows_file(tmp_path, *rows)).problems}
    backward = {p.text: p.id for p in load_problems(rows_file(tmp_path, *rows[::-1])).problems}
    assert forward == backward and len(set(forward.values())) == 3


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    good = {"problem": "1 + 1?", "answer": "2"}
    with pytest.raises(UsageError, match=r"rows.jsonl:2 has no answer .*its columns are 'problem', 'label'"):
        load_problems(rows_file(tmp_path, good, {"problem": "x?", "label": 3}))
    with pytest.raises(UsageError, match=r"rows.jsonl:1 has no problem"):
        load_problems(rows_file(tmp_path, {"answer": "2"}))
    with pytest.raises(UsageError, match="holds no problems"):
        load_problems(rows_file(tmp_path))
    with pytest.raises(UsageError, match="there is no file"):
        load_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(UsageError, match="or one of gsm8k"):
        load_problems("gsm9k")
    (tmp_path / "bad.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem": \n')
    with pytest.raises(UsageError, match=r"bad.jsonl:2 is not JSON"):
        load_problems(str(tmp_path / "bad.jsonl"))
    (tmp_path / "bad.jsonl").write_text("[1]\n")
    with pytest.raises(UsageError, match=r"bad.jsonl:1 must be a JSON object, found list"):
        load_problems(str(tmp_path / "bad.jsonl"))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"problem": "1 + 1?", "answer": "2"}]), path)
    assert load_problems(str(path)).problems[0].answer == "2"
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is not a Parquet file"):
        load_problems(str(path))


def test_shared_problems_are_found_whatever_their_case_and_spaces() -> None:
    train, heldout = [Problem("a", "Find  x.", "1", "s")], [Problem("b", "find x.", "1", "s")]
    with pytest.raises(UsageError, match=r"1 held-out problems are also trained on, such as 'find x.'"):
        check_disjoint(train, heldout)
    check_disjoint(train, [Problem("c", "Find y.", "1", "s")])


def test_jsonl_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"a": 1}, {"b": "ü\u2028\n"}]
    write_jsonl(path, rows)
    assert [row for _, row in read_jsonl(path)] == rows

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retool.files.os.replace", full)
    with pytest.raises(RetoolError, match="the disk is full; make room"):
        write_jsonl(path, [{"a": 2}])
    assert [row for _, row in read_jsonl(path)] == rows
    assert [each.name for each in path.parent.iterdir()] == ["rows.jsonl"]
