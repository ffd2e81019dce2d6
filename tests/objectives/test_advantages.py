"""GAE against its definition; interpreter tokens are neither actions nor time steps."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.objectives.advantages import gae, whiten

fraction = st.floats(0, 1, width=32)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    number = st.floats(-2, 2, width=32)
    values = draw(st.lists(st.lists(number, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    mask = draw(st.lists(st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    rewards = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=rows, max_size=rows))
    return torch.tensor(rewards), torch.tensor(values), torch.tensor(mask)


def by_definition(reward: float, values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = Σ_k (γλ)^k δ_{t+k}, written out, over the steps that are there."""
    count = len(values)
    after = [*values[1:], 0.0]
    deltas = [(reward if t == count - 1 else 0.0) + gamma * after[t] - values[t] for t in range(count)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(count - t)) for t in range(count)]


@given(episodes(), fraction, fraction)
@settings(deadline=None)
def test_it_is_the_sum_of_the_definition_over_the_models_tokens_alone(episode: tuple, gamma: float, lam: float) -> None:
    rewards, values, mask = episode
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row in range(len(rewards)):
        here = mask[row]
        expected = by_definition(float(rewards[row]), values[row][here].tolist(), gamma, lam)
        torch.testing.assert_close(advantages[row][here], torch.tensor(expected), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(returns[row][here], advantages[row][here] + values[row][here])
        assert not advantages[row][~here].any() and not returns[row][~here].any()


def test_with_lambda_and_gamma_one_it_is_reward_minus_value() -> None:
    values = torch.randn(2, 5)
    mask = torch.tensor([[True, True, False, False, True], [True] * 5])
    advantages, returns = gae(torch.tensor([1.0, -1.0]), values, mask)
    torch.testing.assert_close(advantages[mask], (torch.tensor([[1.0], [-1.0]]) - values)[mask])
    assert set(returns[mask].round(decimals=5).tolist()) == {1.0, -1.0}


def test_whitened_advantages_have_mean_zero_and_deviation_one_over_the_mask() -> None:
    mask = torch.rand(4, 9) > 0.4
    white = whiten(torch.randn(4, 9) * 3 + 7, mask)
    assert abs(white[mask].mean()) < 1e-5 and abs(white[mask].std() - 1) < 1e-4
    assert not white[~mask].any()


@given(episodes(), fraction, fraction, st.floats(-100, 100, width=32))
@settings(deadline=None)
def test_nothing_depends_on_what_the_critic_says_of_the_interpreters_tokens(
    episode: tuple, gamma: float, lam: float, said: float
) -> None:
    rewards, values, mask = episode
    other = gae(rewards, torch.where(mask, values, said), mask, gamma, lam)
    torch.testing.assert_close(other, gae(rewards, values, mask, gamma, lam), atol=0, rtol=0)


def test_a_single_token_is_not_whitened() -> None:
    mask = torch.tensor([[False, True]])
    assert whiten(torch.tensor([[5.0, 2.0]]), mask).tolist() == [[0.0, 2.0]]
