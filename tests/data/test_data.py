"""Problems from files: mapped, de-duplicated, and refused with the place of what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retool.data.jsonl import read_jsonl, write_jsonl
from retool.data.labels import agree
from retool.data.load import check_disjoint, load_problems
from retool.errors import RetoolError, UsageError
from retool.grading.grade import exact_integer
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


def test_an_answer_alone_is_no_worked_solution(tmp_path: Path) -> None:
    loaded = load_problems(rows_file(tmp_path, {"problem": "How many?", "answer": "1,024"}), "gsm8k")
    assert [(p.answer, s) for p, s in loaded.rows] == [("1024", None)]


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


numbers = st.sampled_from([-1234, -12, 0, 7, 12, 1234, 21_234])
notations = ["{}", "{:,}", " {}.0", "${}$", "\\${}", "+{}", "0{}", "{}.", "{}/2", "{}x", "1e{}", "−{}", "2\\!{}"]
labels = st.builds(str.format, st.sampled_from(notations), numbers)


@given(labels, labels | st.text(max_size=4))
def test_copies_agree_where_grading_takes_their_integers_for_one(label: str, other: str) -> None:
    same = exact_integer(label) is not None and exact_integer(label) == exact_integer(other)
    assert agree(label, other) == agree(other, label) == (same or label == other)
    assert agree(label, label)


def test_copies_that_write_one_number_in_two_ways_are_no_conflict(tmp_path: Path) -> None:
    rows = [{"problem": "x?", "answer": answer} for answer in ("1,234", "1234", 1234.0, "$1{,}234$")]
    loaded = load_problems(rows_file(tmp_path, *rows))
    assert [problem.answer for problem in loaded.problems] == ["1,234"]
    assert (loaded.report.duplicates, loaded.report.conflicts) == (3, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_row_read_is_kept_or_counted(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    answers = {problem: {a for p, a in pairs if p == problem} for problem, _ in pairs}
    agreed = [problem for problem in answers if len(answers[problem]) == 1]
    always = {"problem": "always there", "answer": "0"}
    loaded = load_problems(rows_file(tmp_path, always, *({"problem": p, "answer": a} for p, a in pairs)))
    assert [problem.text for problem in loaded.problems] == ["always there", *agreed]
    report = loaded.report
    assert report.conflicts == len(answers) - len(agreed)
    # of a conflict two rows are gone: the first, which was kept until then, and the one that disagreed
    assert report.read == len(pairs) + 1 == len(loaded.rows) + report.duplicates + 2 * report.conflicts


def test_the_limit_counts_problems_and_not_rows(tmp_path: Path) -> None:
    rows = [{"problem": p, "answer": "1"} for p in ("a", "a", "b", "c")]
    assert [problem.text for problem in load_problems(rows_file(tmp_path, *rows), limit=2).problems] == ["a", "b"]


def test_a_json_list_is_read_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"problem": "a", "answer": 0}]))
    assert load_problems(str(path)).problems[0].answer == "0"
    path.write_text(json.dumps([{"problem": "a", "answer": "1"}, {"problem": "b"}]))
    with pytest.raises(UsageError, match=r"rows.json, entry 2 has no answer"):
        load_problems(str(path))
    path.write_text(json.dumps({"problem": "a", "answer": "1"}))
    with pytest.raises(UsageError, match=r"rows.json must be a list of objects"):
        load_problems(str(path))


def test_openthoughts_with_and_without_its_metadata(tmp_path: Path) -> None:
    thoughts = "<|begin_of_thought|>\n\nHm, 6 * 7.\n\n<|end_of_thought|>\n\n"
    ending = "<|begin_of_solution|>\n\nIt is \\boxed{42}.\n\n<|end_of_solution|>"
    asked = "Return your final response within \\boxed{}. What is 6 * 7?"
    turns = [{"from": "user", "value": asked}, {"from": "assistant", "value": thoughts + ending}]
    metadata = {
        "problem": "What is 7 * 6?",
        "ground_truth_solution": "So $7 \\cdot 6 = \\boxed{42}$.",
        "deepseek_reasoning": "Hm, 7 * 6.",
        "deepseek_solution": "It is \\boxed{42}.",
        "domain": "math",
    }
    code = {
        "problem": "Sort a list.",
        "ground_truth_solution": None,
        "deepseek_reasoning": "a",
        "deepseek_solution": "b",
    }
    path = rows_file(tmp_path, {"system": "s", "conversations": turns}, metadata, code)
    loaded = load_problems(path, "openthoughts", skip_incomplete=True)
    assert [(p.text, p.answer, s) for p, s in loaded.rows] == [
        ("What is 6 * 7?", "42", "Hm, 6 * 7.\n\nIt is \\boxed{42}."),
        ("What is 7 * 6?", "42", "Hm, 7 * 6.\n\nIt is \\boxed{42}."),
    ]
    assert loaded.report.incomplete == 1 and "has no answer" in loaded.report.incomplete_examples[0]


def test_retool_sft_without_its_instructions(tmp_path: Path) -> None:
    asked = (
        "Solve the following problem step by step. You may write code in <code>.\n*user question:*\n"
        "Answer the following Math Problem and put the answer in the format of \\boxed{answer}\n\nWhat is 6 * 7?\n\n\n"
        "Remember to place the final answer in the last part using the format: \n<answer>\n\\boxed{'…'}\n</answer>"
    )
    said = "Hm.\n<code>\nprint(6*7)\n</code>\n<interpreter>\n42\n</interpreter>\n<answer>\n\\boxed{42}\n</answer>"
    row = {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
    loaded = load_problems(rows_file(tmp_path, row), "retool-sft")
    assert [(p.text, p.answer, s) for p, s in loaded.rows] == [("What is 6 * 7?", "42", said)]


def test_maths_answers_are_in_the_last_boxes_of_its_solutions(tmp_path: Path) -> None:
    row = {"problem": "x?", "solution": "First \\boxed{1}, then $\\boxed{\\frac{1}{2}}$.", "level": "Level 1"}
    assert load_problems(rows_file(tmp_path, row), "math").problems[0].answer == "\\frac{1}{2}"
    assert load_problems(rows_file(tmp_path, row | {"answer": "0.5"}), "math").problems[0].answer == "0.5"
    framed = {"problem": "x?", "solution": "It is not \\boxed{1}, it is $\\fbox{2}$."}
    assert load_problems(rows_file(tmp_path, framed), "math").problems[0].answer == "2"


def test_rows_without_an_answer_may_be_left_out_unless_all_are(tmp_path: Path) -> None:
    path = rows_file(
        tmp_path, {"problem": "x?"}, {"problem": "y?", "answer": float("nan")}, {"problem": "z?", "answer": "1"}
    )
    loaded = load_problems(path, skip_incomplete=True)
    assert [problem.text for problem in loaded.problems] == ["z?"] and loaded.report.incomplete == 2
    with pytest.raises(UsageError, match=r"rows.jsonl:1 has no answer"):
        load_problems(rows_file(tmp_path, {"problem": "x?"}), skip_incomplete=True)


def test_an_empty_cell_of_a_table_is_no_text(tmp_path: Path) -> None:
    row = {"problem": "x?", "answer": "3", "solution": float("nan"), "id": float("nan"), "unique_id": "u1"}
    loaded = load_problems(rows_file(tmp_path, row))
    assert loaded.rows == [(Problem("u1", "x?", "3", "rows"), None)]


def test_two_columns_can_be_one_solution(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"problem": "x?", "answer": "3", "thoughts": "Hm.", "result": "It is 3."})
    loaded = load_problems(path, "problem=problem,answer=answer,solution=thoughts+result")
    assert loaded.rows[0][1] == "Hm.\n\nIt is 3."


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


def test_ids_that_a_set_gives_twice_are_made_from_the_texts(tmp_path: Path) -> None:
    rows = [{"id": identity, "problem": problem, "answer": "1"} for identity, problem in ((0, "a"), (1, "b"), (0, "c"))]
    ids = {problem.text: problem.id for problem in load_problems(rows_file(tmp_path, *rows)).problems}
    assert ids["b"] == "1" and len({*ids.values(), "0"}) == 4
    moved = load_problems(rows_file(tmp_path, *rows[::-1]), limit=2).problems
    assert {problem.text: problem.id for problem in moved} == {text: ids[text] for text in "cb"}


def test_an_id_column_that_was_asked_for_must_tell_problems_apart(tmp_path: Path) -> None:
    rows = [{"n": 7, "problem": problem, "answer": "1"} for problem in ("a", "a ", "b")]
    mapping = "problem=problem,answer=answer,id=n"
    assert load_problems(rows_file(tmp_path, *rows[:2]), mapping).problems[0].id == "7"
    with pytest.raises(UsageError, match=r"different problems with the same id, such as '7' \('a' and 'b'\)"):
        load_problems(rows_file(tmp_path, *rows), mapping)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "x?", "answer": ["3"]}, r"rows.jsonl:2 has a list as its answer .* such as answer=COLUMN\[0\]"),
        ({"problem": [{"content": "x?"}], "answer": "3"}, r"rows.jsonl:2 has a list as its problem \(looked for 'prob"),
        ({"problem": "x?", "answer": {"value": 3}}, "rows.jsonl:2 has a dict as its answer .* or answer=COLUMN.NAME"),
        ({"problem": "x?", "answer": "3", "solution": ["so"]}, "rows.jsonl:2 has a list as its solution"),
        ({"problem": "x\ud800?", "answer": "3"}, r"rows.jsonl:2 has half a surrogate pair, '\\ud800', in its problem"),
        ({"problem": "x?", "answer": "3", "id": "\udfff"}, "rows.jsonl:2 has half a surrogate pair, .* in its id"),
    ],
)
def test_what_is_neither_text_nor_number_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load_problems(rows_file(tmp_path, {"problem": "1 + 1?", "answer": 2}, row))


def test_a_place_inside_a_list_can_be_named(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"problem": "x?", "answer": ["3"]})
    assert load_problems(path, "problem=problem,answer=answer[0]").problems[0].answer == "3"


def test_a_missing_column_lists_the_ready_mappings(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"its columns are 'prompt'.* ready ones are default, gsm8k, math, openthoughts, "
    ):
        load_problems(rows_file(tmp_path, {"prompt": "x?", "answer": "3"}))


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    row = json.dumps({"problem": "x?", "answer": "3"})
    for name, text in (("rows.jsonl", row + "\n"), ("rows.json", f"[{row}]")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert load_problems(str(tmp_path / name)).problems[0].answer == "3"


def test_what_nests_too_deeply_is_named_with_its_place(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "rows.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem": ' + deep + "}\n")
    with pytest.raises(UsageError, match=r"rows.jsonl:2 is nested too deeply"):
        load_problems(str(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.json").write_text(deep)
    with pytest.raises(UsageError, match=r"rows.json is nested too deeply"):
        load_problems(str(tmp_path / "rows.json"))


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    good = {"problem": "1 + 1?", "answer": "2"}
    with pytest.raises(UsageError, match=r"rows.jsonl:2 has no answer .*its columns are 'problem', 'label'"):
        load_problems(rows_file(tmp_path, good, {"problem": "x?", "label": 3}))
    with pytest.raises(UsageError, match=r"rows.jsonl:1 has no problem"):
        load_problems(rows_file(tmp_path, {"answer": "2"}))
    with pytest.raises(UsageError, match=r"rows.jsonl:1 has no answer"):
        load_problems(rows_file(tmp_path, {"question": "x?", "answer": "I do not know. #### "}), "gsm8k")
    with pytest.raises(UsageError, match=r"rows.jsonl:1 has no answer"):
        load_problems(rows_file(tmp_path, {"problem": "x?", "answer": None}))
    with pytest.raises(UsageError, match="holds no problems"):
        load_problems(rows_file(tmp_path))
    with pytest.raises(UsageError, match="there is no file"):
        load_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(UsageError, match="or one of gsm8k"):
        load_problems("gsm9k")
    (tmp_path / "bad.jsonl").write_bytes(b'{"problem": "a", "answer": "1"}\n\n{"problem": "\xff"}\n')
    with pytest.raises(UsageError, match=r"bad.jsonl:3 is not JSON: 'utf-8' codec can't decode"):
        load_problems(str(tmp_path / "bad.jsonl"))
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
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": [{"content": "1 + 1?"}], "answer": "2"}]), path)
    assert load_problems(str(path), "dapo-math-17k").problems[0].text == "1 + 1?"
    with pytest.raises(UsageError, match=r"rows.parquet, row 1 has no problem .*its columns are 'prompt', 'answer'"):
        load_problems(str(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is not a Parquet file"):
        load_problems(str(path))


@pytest.mark.parametrize(
    ("mapping", "row", "problem", "solution"),
    [
        (
            "aime24",
            {"id": 60, "problem": "x?", "solution": "so", "answer": "204"},
            Problem("60", "x?", "204", "rows"),
            "so",
        ),
        ("aime24", {"ID": "I-1", "Problem": "x?", "Answer": 204}, Problem("I-1", "x?", "204", "rows"), None),
        ("aime25", {"id": "0", "problem": "x?", "answer": "70"}, Problem("0", "x?", "70", "rows"), None),
        (
            "math-500",
            {"unique_id": "test/1.json", "problem": "x?", "solution": "so", "answer": "\\frac{1}{2}", "level": 2},
            Problem("test/1.json", "x?", "\\frac{1}{2}", "rows"),
            "so",
        ),
        (
            "dapo-math-17k",
            {"prompt": "x?", "answer": "3", "extra_info": {"index": "i"}},
            Problem("i", "x?", "3", "rows"),
            None,
        ),
    ],
)
def test_the_ready_mappings_read_their_sets(
    mapping: str, row: dict[str, Any], problem: Problem, solution: str | None, tmp_path: Path
) -> None:
    assert load_problems(rows_file(tmp_path, row), mapping).rows == [(problem, solution)]


@pytest.mark.parametrize(
    ("library", "source"), [("pyarrow", "rows.parquet"), ("datasets", "gsm8k"), ("datasets", "a/b")]
)
def test_a_library_that_is_not_installed_is_named(
    library: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs .*{library}.*: pip install 'retool\[data\]'"):
        load_problems(source)


def test_shared_problems_are_found_whatever_their_case_and_spaces() -> None:
    train, heldout = [Problem("a", "Find  x.", "1", "s")], [Problem("b", "find x.", "1", "s")]
    with pytest.raises(UsageError, match=r"1 held-out problems are also trained on, such as 'find x.'"):
        check_disjoint(train, heldout)
    check_disjoint(train, [Problem("c", "Find y.", "1", "s")])


def is_text(text: str) -> bool:
    """JSON's escapes of the two halves of a surrogate pair are one character; half a pair stays what it is."""
    return json.loads(json.dumps(text)) == text


texts = st.text() | st.text(st.characters(codec=None)).filter(is_text)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_jsonl_comes_back_as_it_was_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == list(enumerate(rows, 1))


def test_jsonl_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"a": 1}, {"b": "ü\u2028\n\ud800"}]
    write_jsonl(path, rows)
    assert [row for _, row in read_jsonl(path)] == rows

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retool.files.os.replace", full)
    with pytest.raises(RetoolError, match="the disk is full; make room"):
        write_jsonl(path, [{"a": 2}])
    assert [row for _, row in read_jsonl(path)] == rows
    assert [each.name for each in path.parent.iterdir()] == ["rows.jsonl"]
