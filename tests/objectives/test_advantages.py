"""GAE against its definition, group estimators against loops; interpreter tokens are neither actions nor time steps."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retool.objectives.advantages import (
    adaptive_lambda,
    dr_grpo,
    gae,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
    whiten,
)
from retool.objectives.ragged import spread
from retool.types import Author, Problem, Span, Trajectory

EXACT = {"atol": 1e-6, "rtol": 1e-6}
fraction = st.floats(0, 1)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[float], list[list[float]]]:
    """Rewards, and the critic's values of each trajectory's tokens; some trajectories have none."""
    values = draw(st.lists(st.lists(st.floats(-2, 2), max_size=9), min_size=1, max_size=4))
    return [draw(st.sampled_from([-1.0, 1.0])) for _ in values], values


def laid_out(values: list[list[float]], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([value for row in values for value in row], dtype=dtype), torch.tensor(
        [len(row) for row in values]
    )


def by_definition(reward: float, values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = Σ_k (γλ)^k δ_{t+k}, written out."""
    count = len(values)
    after = [*values[1:], 0.0]
    deltas = [(reward if t == count - 1 else 0.0) + gamma * after[t] - values[t] for t in range(count)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(count - t)) for t in range(count)]


@given(episodes(), fraction, fraction)
def test_gae_is_the_sum_of_the_definition(episode: tuple, gamma: float, lam: float) -> None:
    rewards, rows = episode
    values, lengths = laid_out(rows)
    advantages, returns = gae(torch.tensor(rewards), values, lengths, gamma, lam)
    expected = [by_definition(reward, row, gamma, lam) for reward, row in zip(rewards, rows, strict=True)]
    torch.testing.assert_close(advantages, laid_out(expected)[0], **EXACT)
    torch.testing.assert_close(returns, advantages + values, **EXACT)


@given(episodes(), fraction, st.lists(fraction, min_size=4, max_size=4))
def test_lambda_may_be_one_per_trajectory_and_another_for_the_critic(episode: tuple, gamma: float, lams: list) -> None:
    rewards, rows = episode
    values, lengths = laid_out(rows)
    lam = torch.tensor(lams[: len(rows)], dtype=torch.float64)
    advantages, returns = gae(torch.tensor(rewards), values, lengths, gamma, lam, critic_lam=1.0)
    expected = [by_definition(r, row, gamma, x) for r, row, x in zip(rewards, rows, lams, strict=False)]
    torch.testing.assert_close(advantages, laid_out(expected)[0], **EXACT)
    torch.testing.assert_close(returns, gae(torch.tensor(rewards), values, lengths, gamma, 1.0)[1], **EXACT)


def test_with_lambda_and_gamma_one_the_return_is_the_reward() -> None:
    torch.manual_seed(0)
    values, lengths = torch.randn(5000), torch.tensor([3000, 0, 2000])
    advantages, returns = gae(torch.tensor([1.0, 1.0, -1.0]), values, lengths)
    torch.testing.assert_close(returns, spread(torch.tensor([1.0, 1.0, -1.0]), lengths), atol=1e-5, rtol=0)
    torch.testing.assert_close(advantages, returns - values, atol=1e-5, rtol=0)


def test_values_of_low_precision_are_computed_with_in_fp32() -> None:
    advantages, returns = gae(torch.ones(1), torch.rand(9).bfloat16(), torch.tensor([9]), 0.9, 0.9)
    assert advantages.dtype is returns.dtype is torch.float32


def test_a_long_result_in_the_middle_changes_no_advantage() -> None:
    """Flat tensors hold what the model wrote, so the step over the result is one step, with one discount."""

    def rolled_out(result: int) -> Trajectory:
        lengths = [(Author.MODEL, 4), (Author.INTERPRETER, result), (Author.MODEL, 3)]
        spans = [Span(author, list(range(n)), "") for author, n in lengths if n]
        return Trajectory("t", 1, "a", 0, 0, "g", "m", "tags", Problem("p", "?", "1", "s"), [], spans)

    def estimated(trajectory: Trajectory) -> torch.Tensor:
        said = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
        all_values = torch.tensor([next(said) if mine else 99.0 for mine in trajectory.model_mask])
        values = all_values[torch.tensor(trajectory.model_mask)]
        return gae(torch.ones(1), values, torch.tensor([trajectory.tokens(Author.MODEL)]), 0.99, 0.95)[0]

    advantages = estimated(rolled_out(result=1000))
    assert advantages.equal(estimated(rolled_out(result=0)))
    expected = by_definition(1.0, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 0.99, 0.95)
    torch.testing.assert_close(advantages, torch.tensor(expected), **EXACT)


def test_adaptive_lambda_lets_the_weights_sum_up_to_alpha_times_the_length() -> None:
    lengths = torch.tensor([0, 5, 20, 40, 1000, 20000])
    lam = adaptive_lambda(lengths, alpha=0.05)
    torch.testing.assert_close(lam, torch.tensor([0, 0, 0, 0.5, 0.98, 0.999]), **EXACT)
    torch.testing.assert_close(1 / (1 - lam[3:]), 0.05 * lengths[3:], atol=0, rtol=1e-4)


def test_whitened_entries_have_mean_zero_and_deviation_one() -> None:
    torch.manual_seed(0)
    white = whiten(torch.randn(999, dtype=torch.float64) * 3 + 7)
    assert abs(white.mean()) < 1e-6 and abs(white.std() - 1) < 1e-6


def test_a_weight_is_the_number_of_times_that_an_entry_counts() -> None:
    x, counts = torch.tensor([3.0, -1.0, 0.5, 8.0]), torch.tensor([2, 1, 0, 3])
    white = whiten(x, counts)
    torch.testing.assert_close(spread(white, counts), whiten(spread(x, counts)), **EXACT)
    assert white[2] == 0
    torch.testing.assert_close(whiten(x, counts > 0)[[0, 1, 3]], whiten(x[[0, 1, 3]]), **EXACT)


def test_what_has_no_deviation_is_not_divided_by_it() -> None:
    assert whiten(torch.tensor([2.0])).tolist() == [2.0]
    assert whiten(torch.tensor([5.0, 2.0]), torch.tensor([False, True])).tolist() == [0.0, 2.0]
    assert whiten(torch.full((3,), 0.1)).tolist() == [0.0] * 3
    assert whiten(torch.zeros(0)).tolist() == []


REWARDS = [1.0, -1.0, 0.3, 0.1, 0.1, 0.1, -1.0, 1.0, 1.0, 0.7]
GROUPS = [7, 7, -2, 4, 4, 4, 7, 7, 9, 9]


def others(i: int) -> list[float]:
    return [r for j, (r, g) in enumerate(zip(REWARDS, GROUPS, strict=True)) if g == GROUPS[i] and j != i]


def group_of(i: int) -> list[float]:
    return [REWARDS[i], *others(i)]


def check(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), **EXACT)


def test_grpo_divides_the_gap_to_the_groups_mean_by_the_groups_unbiased_deviation() -> None:
    def by_hand(i: int) -> float:
        group = group_of(i)
        return (REWARDS[i] - statistics.mean(group)) / (statistics.stdev(group) + 1e-4) if len(group) > 1 else 0.0

    check(grpo(torch.tensor(REWARDS), torch.tensor(GROUPS), eps=1e-4), [by_hand(i) for i in range(10)])


def test_dr_grpo_is_the_gap_to_the_groups_mean() -> None:
    expected = [REWARDS[i] - statistics.mean(group_of(i)) for i in range(10)]
    check(dr_grpo(torch.tensor(REWARDS), torch.tensor(GROUPS)), expected)


def test_rloo_is_the_gap_to_the_mean_of_the_others() -> None:
    expected = [REWARDS[i] - statistics.mean(others(i)) if others(i) else 0.0 for i in range(10)]
    check(rloo(torch.tensor(REWARDS), torch.tensor(GROUPS)), expected)


def test_reinforce_pp_whitens_the_batch_with_or_without_the_groups_means() -> None:
    rewards, groups = torch.tensor(REWARDS), torch.tensor(GROUPS)
    mean, deviation = statistics.mean(REWARDS), statistics.stdev(REWARDS)
    check(reinforce_pp(rewards, groups), [(r - mean) / deviation for r in REWARDS])
    gaps = [REWARDS[i] - statistics.mean(group_of(i)) for i in range(10)]
    check(reinforce_pp_baseline(rewards, groups), [gap / statistics.stdev(gaps) for gap in gaps])


def test_whitening_again_over_tokens_is_whitening_over_tokens() -> None:
    rewards, groups, lengths = torch.tensor(REWARDS), torch.tensor(GROUPS), torch.arange(10)
    again = whiten(spread(reinforce_pp(rewards, groups), lengths))
    torch.testing.assert_close(again, whiten(spread(rewards, lengths)), **EXACT)


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo])
@given(st.floats(-3, 3, width=32), st.integers(1, 40))
def test_equal_rewards_and_groups_of_one_have_no_advantage_at_all(estimator: object, reward: float, size: int) -> None:
    assert not estimator(torch.full((size,), reward), torch.zeros(size, dtype=torch.int64)).any()


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, reinforce_pp, reinforce_pp_baseline])
def test_no_trajectories_have_no_advantages(estimator: object) -> None:
    assert estimator(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)
