"""What an evaluation says about a set of graded trajectories."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.errors import UsageError
from retool.evaluation import summarize
from retool.types import Problem, StopReason, Trajectory


def sample(problem: str, number: int, answer: str | None, *, source: str = "sums", stop: StopReason = StopReason.EOS):
    """A graded sample; the answer "42" is right."""
    return Trajectory(
        id=f"{problem}-{number}",
        step=0,
        arm="retool",
        seed=0,
        sample=number,
        group=problem,
        model="m",
        protocol="tags",
        problem=Problem(problem, f"question {problem}", "42", source),
        prompt_ids=[],
        stop=stop,
        answer=answer,
        correct=answer == "42",
    )


MIXED = [
    *(sample("a", i, answer) for i, answer in enumerate(["42", "42", "7", "8"])),
    *(sample("b", i, answer, source="powers") for i, answer in enumerate(["7", "7", None, "42"])),
    *(sample("c", i, "42", source="powers") for i in range(4)),
]


def test_accuracy_is_the_mean_over_problems():
    summary = summarize(MIXED)
    assert summary["accuracy"] == pytest.approx((0.5 + 0.25 + 1) / 3)
    assert summary["problems"] == 3
    assert summary["samples"] == 4
    assert summary["families"] == {"powers": 0.625, "sums": 0.5}


def test_a_problem_with_more_samples_has_no_more_weight():
    samples = [sample("a", i, "42") for i in range(9)] + [sample("b", 0, "7")]
    summary = summarize(samples)
    assert summary["accuracy"] == 0.5
    assert summary["samples"] == 1


def test_pass_and_majority_are_given_for_powers_of_two_and_all_samples():
    summary = summarize([sample(p, i, "7" if i < 2 else "42") for p in "abc" for i in range(6)])
    assert list(summary["pass_at"]) == list(summary["maj_at"]) == ["1", "2", "4", "6"]
    assert summary["pass_at"]["1"] == summary["maj_at"]["1"] == pytest.approx(summary["accuracy"])
    assert summary["pass_at"]["6"] == summary["maj_at"]["6"] == 1


def test_two_wrong_answers_may_be_the_same_vote():
    samples = [sample("a", i, answer) for i, answer in enumerate(["42", "42", "0.5", "1/2", ".5"])]
    assert summarize(samples)["maj_at"]["5"] == 1
    halves = {"0.5", "1/2", ".5"}
    same = summarize(samples, equal=lambda a, b: a == b or {a, b} <= halves)
    assert same["maj_at"]["5"] == 0


def test_a_response_that_was_cut_off_or_says_nothing_has_no_vote():
    cut = [sample("a", i, "7", stop=StopReason.TOKENS) for i in range(3)]
    silent = [sample("a", 3 + i, answer) for i, answer in enumerate([None, "", " "])]
    assert summarize([*cut, *silent, sample("a", 6, "42")])["maj_at"]["7"] == 1


def test_truncated_is_the_share_that_ran_out_of_tokens_calls_or_seconds():
    samples = [sample("a", i, None, stop=stop) for i, stop in enumerate(StopReason)]
    assert summarize(samples)["truncated"] == 4 / len(StopReason) == 4 / 6


@pytest.mark.parametrize(("answer", "accuracy"), [("42", 1.0), ("7", 0.0), (None, 0.0)])
def test_all_right_and_all_wrong(answer, accuracy):
    summary = summarize([sample(str(p), i, answer) for p in range(20) for i in range(2)])
    assert summary["accuracy"] == accuracy
    assert summary["ci95"] == [accuracy, accuracy]
    assert set(summary["pass_at"].values()) == set(summary["maj_at"].values()) == {accuracy}


answers = st.lists(st.sampled_from(["42", "7", "8", None]), min_size=2, max_size=5)


@given(st.dictionaries(st.sampled_from("abcdef"), answers, min_size=1), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_samples_does_not_matter(by_problem, rng):
    samples = [sample(p, i, a, source=p * 2) for p, given_ in by_problem.items() for i, a in enumerate(given_)]
    shuffled = list(samples)
    rng.shuffle(shuffled)
    assert summarize(shuffled, resamples=200) == summarize(samples, resamples=200)


@given(st.dictionaries(st.sampled_from("abcdef"), answers, min_size=1))
@settings(max_examples=40)
def test_pass_grows_with_k_and_the_interval_holds_the_accuracy(by_problem):
    samples = [sample(p, i, a) for p, given_ in by_problem.items() for i, a in enumerate(given_)]
    summary = summarize(samples, resamples=500)
    assert list(summary["pass_at"].values()) == sorted(summary["pass_at"].values())
    low, high = summary["ci95"]
    assert low - 1e-12 <= summary["accuracy"] <= high + 1e-12


def test_the_summary_is_json_and_reproducible():
    summary = summarize(MIXED, seed=3)
    assert json.loads(json.dumps(summary)) == summary == summarize(MIXED, seed=3)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(UsageError, match="no trajectories"):
        summarize([])


def test_two_problems_with_one_id_are_an_error():
    other = sample("a", 1, "42")
    other.problem = Problem("a", "another question", "42", "sums")
    with pytest.raises(UsageError, match="two different problems with the id 'a'"):
        summarize([sample("a", 0, "42"), other])
