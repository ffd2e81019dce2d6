"""Generated puzzles: balanced, distinct, reproducible, and split by task."""

from collections import Counter

import pytest

from retool.errors import UsageError
from retool.puzzles.families import FAMILIES
from retool.puzzles.generate import generate, split, task


def test_families_take_turns():
    rows = generate(3 * len(FAMILIES), seed=0)
    assert Counter(problem.source for problem, _ in rows) == dict.fromkeys(FAMILIES, 3)
    assert rows[0][0].id == f"{next(iter(FAMILIES))}/000000-seed0"


def test_the_seed_decides():
    assert generate(100, seed=3) == generate(100, seed=3)
    assert generate(100, seed=3) != generate(100, seed=4)


def test_a_solution_ends_in_its_boxed_answer():
    for problem, solution in generate(220, seed=1):
        assert solution.endswith(f"So the answer is \\boxed{{{problem.answer}}}.")


def test_train_and_heldout_share_no_task_in_whatever_words():
    train, heldout = split(2000, 220, seed=0)
    assert (len(train), len(heldout)) == (2000, 220)
    assert not {task(solution) for _, solution in train} & {task(solution) for _, solution in heldout}
    everything = train + heldout
    assert len({problem.text for problem, _ in everything}) == len({problem.id for problem, _ in everything}) == 2220


def test_excluded_tasks_are_not_drawn():
    excluded = {task(solution) for _, solution in generate(110, seed=0)}
    assert not excluded & {task(solution) for _, solution in generate(110, seed=0, exclude=excluded)}


def test_a_family_without_news_leaves_its_turns_to_the_others():
    rows = generate(len(FAMILIES) * 1100, seed=0)
    counts = Counter(problem.source for problem, _ in rows)
    assert counts["digit_sum_of_power"] < 1100 < counts["number_base"]
    assert len({problem.text for problem, _ in rows}) == len(rows)


def test_more_puzzles_than_there_are_is_an_error(monkeypatch):
    family = "digit_sum_of_power"
    monkeypatch.setattr("retool.puzzles.generate.FAMILIES", {family: FAMILIES[family]})
    with pytest.raises(UsageError, match="ask for fewer"):
        generate(100_000, seed=0)
