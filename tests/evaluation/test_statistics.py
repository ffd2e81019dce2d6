"""The estimators agree with closed forms and with enumeration."""

from itertools import combinations
from math import comb, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.evaluation import bootstrap_interval, majority_at_k, pass_at_k


def binomial_quantile(n: int, p: float, share: float) -> int:
    """The smallest count that a binomial variable stays at or below with probability `share`."""
    total = 0.0
    for count in range(n + 1):
        total += comb(n, count) * p**count * (1 - p) ** (n - count)
        if total >= share:
            return count
    return n


@pytest.mark.parametrize(("right", "problems"), [(30, 100), (55, 100), (150, 200), (3, 30)])
def test_interval_of_one_sample_a_problem_is_the_binomial_one(right, problems):
    scores = [1.0] * right + [0.0] * (problems - right)
    low, high = bootstrap_interval(scores, resamples=40_000)
    p = right / problems
    assert low * problems == pytest.approx(binomial_quantile(problems, p, 0.025), abs=1)
    assert high * problems == pytest.approx(binomial_quantile(problems, p, 0.975), abs=1)


def test_interval_of_many_problems_is_the_normal_one():
    scores = [(7 * i % 5) / 4 for i in range(2000)]
    mean = sum(scores) / len(scores)
    error = sqrt(sum((s - mean) ** 2 for s in scores)) / len(scores)
    low, high = bootstrap_interval(scores)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


@pytest.mark.parametrize("score", [0.0, 1.0, 0.25])
def test_interval_has_no_width_where_nothing_varies(score):
    assert bootstrap_interval([score] * 40) == (score, score)


def test_interval_is_reproducible_and_follows_its_seed():
    scores = [i % 3 / 2 for i in range(50)]
    assert bootstrap_interval(scores, seed=1) == bootstrap_interval(scores, seed=1)
    assert bootstrap_interval(scores, seed=1, resamples=99) != bootstrap_interval(scores, seed=2, resamples=99)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=30)
def test_interval_holds_the_mean_of_resamples_and_stays_within_the_scores(scores, seed):
    low, high = bootstrap_interval(scores, seed=seed, resamples=400)
    assert min(scores) - 1e-12 <= low <= high <= max(scores) + 1e-12


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(samples, data):
    k = data.draw(st.integers(1, len(samples)))
    subsets = [any(subset) for subset in combinations(samples, k)]
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(sum(subsets) / len(subsets))


@given(st.integers(1, 40), st.data())
def test_pass_at_k_grows_with_k_from_the_share_that_is_right(samples, data):
    right = data.draw(st.integers(0, samples))
    values = [pass_at_k(samples, right, k) for k in range(1, samples + 1)]
    assert values[0] == pytest.approx(right / samples)
    assert values == sorted(values)
    assert values[-1] == (right > 0)


def vote(answers: tuple[str, ...]) -> float:
    """Share of the vote's winners that are right; "R" is the right answer, "-" is none."""
    counts = {answer: answers.count(answer) for answer in answers if answer != "-"}
    winners = [answer for answer, count in counts.items() if count == max(counts.values())]
    return ("R" in winners) / len(winners) if winners else 0.0


@given(st.lists(st.sampled_from("RRabc-"), min_size=1, max_size=8), st.data())
def test_majority_at_k_is_the_mean_vote_over_all_subsets(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    votes = [vote(subset) for subset in combinations(answers, k)]
    wrong = [answers.count(answer) for answer in "abc" if answer in answers]
    expected = sum(votes) / len(votes)
    assert majority_at_k(answers.count("R"), wrong, k, answers.count("-")) == pytest.approx(expected)


def test_majority_of_all_samples_is_the_plain_vote():
    assert majority_at_k(3, [2, 2], 7) == 1
    assert majority_at_k(2, [3], 5) == 0
    assert majority_at_k(2, [2], 4) == 0.5


def test_majority_of_many_samples_is_quick_and_a_probability():
    assert 0 < majority_at_k(20, [1] * 30 + [7, 7], 32) < 1


@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_the_samples_is_refused(k):
    with pytest.raises(ValueError, match=r"number of samples \(4\)"):
        pass_at_k(4, 2, k)
    with pytest.raises(ValueError, match=r"number of samples \(4\)"):
        majority_at_k(2, [2], k)
