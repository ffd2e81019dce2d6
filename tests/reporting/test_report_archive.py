"""What a page holds of trajectories: all that was written, cut up for a reader, within its budget."""

import re
from dataclasses import replace
from random import Random

import pytest
from demo_run import DIGITS, POWER, archive, entries, trajectory
from hypothesis import given
from hypothesis import strategies as st

from parsed_page import Page, page_of, rows_of, unpacked
from retool.reporting import Archive, Entry, LearnerTokens, Origin, Report
from retool.reporting.reading import marks, spans_of
from retool.types import Author, CallStatus, Span, ToolCall, Trajectory

OK = CallStatus.OK


def entry_of(told: Trajectory, **known) -> Entry:
    return Entry(run="a", origin=Origin.EVALUATION, trajectory=told, **known)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return page_of(Report(title="t", archive=archive(entries())), tmp_path_factory.mktemp("archive"))


def written(passages) -> str:
    return re.sub(r"\s+", "", "".join(p.get("text") or p["code"] for p in passages))


def test_all_trajectories_are_there_with_all_that_was_written(page):
    assert len(page.rows) == len(entries())
    for row, entry in zip(page.rows, entries(), strict=True):
        t, shown = entry.trajectory, page.read(row)
        assert shown["id"] == t.id
        assert shown["prompt"] == entry.prompt
        assert [span["author"] for span in shown["spans"]] == [span.author for span in t.spans]
        assert [written(s["passages"]) for s in shown["spans"]] == [re.sub(r"\s+", "", s.text) for s in t.spans]
        assert [s["tokens"] for s in shown["spans"]] == [len(s.ids) for s in t.spans]


def test_the_list_knows_what_it_is_filtered_and_sorted_by(page):
    rows = page.rows
    assert [row["correct"] for row in rows] == [int(entry.trajectory.correct) for entry in entries()]
    mended = next(row for row in rows if row["corrected"])
    assert (mended["calls"], mended["failed"], mended["ran"], mended["step"]) == (2, 1, 2, 40)
    assert mended["reward"] == 1.0
    problems = page.columns["problems"]
    assert [problems[row["problem"]]["id"] for row in rows] == [e.trajectory.problem.id for e in entries()]
    assert len(problems) == 3
    assert page.columns["runs"] == ["ReTool", "text-only RL"]


def test_each_call_tells_how_it_ended_what_it_was_for_and_what_it_took(page):
    timed = next(page.read(row) for row, e in zip(page.rows, entries(), strict=True) if e.seconds)
    assert timed["calls"] == [{"status": "ok", "purpose": "calculation", "queue": 0.004, "run": 0.0121}]
    mended = next(page.read(row) for row in page.rows if row["corrected"])
    assert [call["status"] for call in mended["calls"]] == ["error", "ok"]
    assert mended["spans"][1]["ended"] == [0]
    assert mended["corrections"][0]["fixed"] == 1


def test_code_is_set_apart_with_the_marks_of_its_highlighting():
    told = trajectory(POWER, "First ", ("for i in range(3):\n    print(i)  # π", "0", OK), arm="a", step=0, answer=None)
    text, code, rest = spans_of(told)[0]["passages"]
    assert (text["text"], rest["text"]) == ("First <code>", "</code>")
    classes, lengths = code["marks"][::2], code["marks"][1::2]
    assert sum(lengths) == len(code["code"])
    start = 0
    pieces = [(name, code["code"][start : (start := start + n)]) for name, n in zip(classes, lengths, strict=True)]
    assert ("keyword", "for") in pieces
    assert ("name", "range") in pieces
    assert pieces[-1] == ("comment", "# π")


@given(st.text(max_size=60))
def test_marks_cover_all_of_any_code_in_the_units_of_javascript(code):
    assert sum(marks(code)[1::2]) == len(code.encode("utf-16-le", "surrogatepass")) // 2


def test_code_that_the_span_holds_only_escaped_is_shown_after_it():
    told = trajectory(DIGITS, ("print('a')\nprint('b')", "a", OK), arm="a", step=0, answer="65")
    told.spans[0].text = "<tool_call>{\"code\": \"print('a')\\nprint('b')\"}</tool_call>"
    text, code = spans_of(told)[0]["passages"]
    assert text["text"] == told.spans[0].text
    assert code["code"] == told.calls[0].code


def test_two_calls_of_one_turn_are_both_set_apart_and_end_at_the_same_result():
    told = trajectory(DIGITS, ("print(1)", "1", OK), arm="a", step=0, answer="65")
    told.spans[0].text = "Both: print(2) <code>print(1)</code> and <code>print(2)</code>"
    told.calls.append(ToolCall(0, 5, "print(2)", "2", CallStatus.ERROR))
    spans = spans_of(told)
    shown = [(p.get("call"), p.get("text") or p["code"]) for p in spans[0]["passages"]]
    assert shown == [
        (None, "Both: print(2) <code>"),
        (0, "print(1)"),
        (None, "</code> and <code>"),
        (1, "print(2)"),
        (None, "</code>"),
    ]
    assert spans[1]["ended"] == [0, 1]


def test_a_call_that_was_never_answered_ends_where_it_was_made():
    told = trajectory(DIGITS, ("1", "", CallStatus.OVERLOAD), arm="a", step=0, answer=None)
    del told.spans[1]
    assert spans_of(told)[0]["ended"] == [0]


def test_tokens_have_text_log_prob_gap_and_advantage(page):
    entry = next(e for e in entries() if e.learner)
    row = next(row for row in page.rows if row["gap"] is not None)
    tokens = page.tokens(row)
    assert tokens["pieces"] == [f"t{token} " for token in entry.trajectory.response_ids]
    count = entry.trajectory.tokens(Author.MODEL)
    assert tokens["logprobs"] == [-10] * count
    assert tokens["gap"][:3] == [0, -20, -40]
    assert tokens["advantages"] == [round(100 * a) for a in entry.learner.advantages]
    assert row["gap"] == pytest.approx(sum(0.002 * (i % 7) for i in range(count)) / count, abs=1e-5)
    assert page.read(row)["in_loss"] is True


def test_text_only_trajectories_have_no_tokens_and_are_measured_in_characters(tmp_path):
    told = trajectory(POWER, "By hand.", arm="a", step=0, answer="302")
    told.spans = [Span(Author.MODEL, None, "By hand.")]
    one = page_of(Report(title="t", archive=archive([entry_of(told)])), tmp_path)
    (row,) = one.rows
    assert (row["length"], row["characters"], one.tokens(row)) == (None, 8, None)
    assert "per-token" not in one.text


def test_numbers_that_are_none_become_null(tmp_path):
    told = trajectory(POWER, "x", arm="a", step=0, answer="302")
    told.reward = {"total": float("nan")}
    told.spans[0].logprobs = [float("-inf")] * len(told.spans[0].ids)
    one = page_of(Report(title="t", archive=archive([entry_of(told)])), tmp_path)
    (row,) = one.rows
    assert row["reward"] is None
    assert set(one.tokens(row)["logprobs"]) == {None}


def noise(seed: int, characters: int) -> str:
    """Text that does not compress well, the same for the same seed."""
    return "".join(Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=characters))


def filled(page_bytes: int, count: int, characters: int) -> Archive:
    """With every other trajectory learned from."""
    found = Archive(page_bytes)
    for i in range(count):
        told = trajectory(POWER, noise(i, characters), arm="a", step=0, answer="302", sample=i)
        learner = LearnerTokens([-0.1] * told.tokens(Author.MODEL), [0.5] * told.tokens(Author.MODEL))
        pieces = {token: hex(token * 7919 % 65521) for token in told.response_ids}
        found.add(entry_of(told, pieces=pieces, learner=learner if i % 2 else None))
    return found


def test_an_archive_keeps_to_its_budget_and_says_what_is_missing():
    spent, room = 1_100_000, 400_000
    full = filled(spent + room, 300, 4000)
    full.omit("b", 7)
    packed = sum(map(len, full.chunks(spent).values())) + len(full.columns())
    assert 0.8 * room < packed <= room
    rows = rows_of(unpacked(full.columns()))
    kept = len(rows)
    assert 50 < kept < 300
    assert [row["sample"] for row in rows] == list(range(kept))
    missing, without = full.notes()
    assert f"{kept} of 307 trajectories are in this page; no room was left for {300 - kept} of a, 7 of b" in missing
    assert f"{sum(row['token_chunk'] is None for row in rows)} of {kept} trajectories" in without
    first = [row["sample"] for row in rows if row["token_chunk"] is not None]
    assert any(sample % 2 for sample in first)
    assert sum(sample % 2 for sample in first) >= len(first) / 2


def test_a_page_stays_below_its_size_with_all_that_is_in_it(tmp_path):
    largest = 2_000_000
    page = page_of(Report(title="t", archive=filled(largest, 60, 12_000)), tmp_path)
    assert largest - 100_000 < len(page.html.encode()) <= largest
    tokens = [row["token_chunk"] is not None for row in page.rows]
    assert len(tokens) == 60
    assert 0 < sum(tokens) < 60


def test_the_same_trajectories_give_the_same_bytes(page, tmp_path):
    again = page_of(Report(title="t", archive=archive(entries())), tmp_path)
    assert again.html == page.html


def test_calls_without_their_purposes_are_a_mistake():
    with pytest.raises(ValueError):
        Archive().add(replace(entries()[3], purposes=["calculation", "search"]))
