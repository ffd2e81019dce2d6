"""The paired comparison agrees with enumeration and with closed forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import comb, erfc, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.errors import UsageError
from retool.evaluation import compare, comparison, sign_flip_test
from retool.types import Problem, Trajectory


def evaluation(scores: dict[str, Sequence[bool]]) -> list[Trajectory]:
    """A sample for each of `scores[text]`, right or wrong."""
    return [
        Trajectory(
            id=f"{text}/{sample}",
            step=0,
            arm="a",
            seed=0,
            sample=sample,
            group=text,
            model="m",
            protocol="tags",
            problem=Problem(f"id of {text}", text, "42", "set"),
            prompt_ids=None,
            correct=right,
        )
        for text, samples in scores.items()
        for sample, right in enumerate(samples)
    ]


@given(st.lists(st.fractions(-1, 1, max_denominator=6), min_size=1, max_size=10))
def test_the_p_value_is_the_share_of_all_sign_choices_that_reach_as_far(differences: list[Fraction]) -> None:
    choices = product((1, -1), repeat=len(differences))
    sums = [sum(sign * d for sign, d in zip(signs, differences, strict=True)) for signs in choices]
    as_far = sum(abs(one) >= abs(sum(differences)) for one in sums)
    assert sign_flip_test(differences) == pytest.approx(as_far / len(sums))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_with_one_sample_a_problem_it_is_the_exact_mcnemar_test(better: int, worse: int, equal: int) -> None:
    differences = [Fraction(1)] * better + [Fraction(-1)] * worse + [Fraction(0)] * (equal + 1)
    n = better + worse
    tail = sum(comb(n, k) for k in range(min(better, worse) + 1)) / 2**n
    assert sign_flip_test(differences) == pytest.approx(min(1.0, 2 * tail))


def test_for_many_problems_it_is_the_normal_one() -> None:
    differences = [Fraction((7 * i) % 33 - 15, 32) for i in range(500)]
    z = float(abs(sum(differences))) / sqrt(sum(float(d) ** 2 for d in differences))
    assert sign_flip_test(differences) == pytest.approx(erfc(z / sqrt(2)), rel=0.05)


def test_signs_are_drawn_where_too_many_sums_can_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [Fraction((5 * i) % 13 - 5, 12) for i in range(40)]
    exact = sign_flip_test(differences)
    monkeypatch.setattr(comparison, "LARGEST_LATTICE", 0)
    drawn = sign_flip_test(differences, seed=1)
    assert drawn == sign_flip_test(differences, seed=1)
    assert drawn == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / comparison.DRAWN_SIGNS))


def test_the_same_results_differ_by_nothing() -> None:
    same = evaluation({str(p): [p % 2 == 0, p % 3 == 0] for p in range(20)})
    found = compare(same, same)
    assert (found["difference"], found["ci95"], found["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert (found["better"], found["worse"], found["equal"]) == (0, 0, 20)


def test_only_shared_problems_count_and_each_of_them_once() -> None:
    first = evaluation({"a": [True, False], "b": [False], "gone": [True] * 9})
    second = evaluation({" a\n": [True], "b": [False, True, True, True], "new": [False]})
    found = compare(first, second)
    assert (found["problems"], found["only"]) == (2, [1, 1])
    assert found["accuracy"] == [0.25, 0.875]
    assert found["difference"] == 0.625 and found["ci95"] == [0.5, 0.75]
    assert json.loads(json.dumps(found)) == found


def test_evaluations_of_other_problems_are_refused() -> None:
    with pytest.raises(UsageError, match=r"share no problem \(1 and 2 problems\)"):
        compare(evaluation({"a": [True]}), evaluation({"b": [True], "c": [True]}))


scores = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.booleans(), min_size=1, max_size=4), min_size=6)


@given(scores, scores)
@settings(max_examples=25)
def test_the_other_way_round_it_is_the_same_with_the_other_sign(one: dict, other: dict) -> None:
    first, second = evaluation(one), evaluation(other)
    there, back = compare(first, second, resamples=200), compare(second, first, resamples=200)
    assert there["difference"] == -back["difference"]
    assert there["p_value"] == back["p_value"]
    assert (there["better"], there["worse"]) == (back["worse"], back["better"])


@given(scores, scores)
@settings(max_examples=25)
def test_the_p_value_is_a_probability_and_the_interval_holds_the_difference(one: dict, other: dict) -> None:
    found = compare(evaluation(one), evaluation(other), resamples=500)
    assert 0 < found["p_value"] <= 1
    low, high = found["ci95"]
    assert low - 1e-12 <= found["difference"] <= high + 1e-12
