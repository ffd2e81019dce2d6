"""Trajectories laid end to end."""

from __future__ import annotations

import math

import torch

from retool.objectives.ragged import at_least_fp32, means, pad, spread, sums, tokens_after, unpad

LENGTHS = torch.tensor([0, 2, 0, 3, 1])
X = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_sums_and_means_are_those_of_each_trajectory_and_zero_of_an_empty_one() -> None:
    assert sums(X, LENGTHS).tolist() == [0, 3, 0, 12, 6]
    assert means(X, LENGTHS).tolist() == [0, 1.5, 0, 4, 6]


def test_a_value_is_spread_over_its_trajectorys_tokens() -> None:
    assert spread(torch.tensor([9, 1, 9, 2, 3]), LENGTHS).tolist() == [1, 1, 2, 2, 2, 3]


def test_each_token_knows_how_many_follow_in_its_own_trajectory() -> None:
    assert tokens_after(LENGTHS).tolist() == [1, 0, 2, 1, 0, 0]


def test_padding_is_undone_without_loss() -> None:
    padded = pad(X, LENGTHS, fill=-1.0)
    assert padded.tolist() == [[-1, -1, -1], [1, 2, -1], [-1, -1, -1], [3, 4, 5], [6, -1, -1]]
    assert unpad(padded, LENGTHS).equal(X)


def test_nothing_at_all_is_no_trajectory_too_many() -> None:
    nothing, no_lengths = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for lengths in (no_lengths, torch.tensor([0, 0])):
        assert sums(nothing, lengths).tolist() == [0.0] * len(lengths)
        assert unpad(pad(nothing, lengths), lengths).shape == tokens_after(lengths).shape == (0,)


def test_gradients_flow_through_sums_to_the_tokens_they_came_from() -> None:
    tokens = X.clone().requires_grad_()
    (sums(tokens, LENGTHS) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert tokens.grad.tolist() == [2, 2, 4, 4, 4, 5]


def test_a_sum_is_the_rounded_true_one_so_it_does_not_depend_on_who_else_is_in_the_batch() -> None:
    torch.manual_seed(0)
    tokens, lengths = 100 + torch.randn(3000), [1000, 7, 1993]
    expected = torch.tensor([math.fsum(part.tolist()) for part in tokens.split(lengths)])
    assert sums(tokens, torch.tensor(lengths)).equal(expected)


def test_low_precision_is_raised_and_high_precision_kept() -> None:
    assert at_least_fp32(torch.zeros(1, dtype=torch.bfloat16)).dtype is torch.float32
    assert at_least_fp32(torch.zeros(1, dtype=torch.float64)).dtype is torch.float64
    assert sums(torch.ones(5000, dtype=torch.bfloat16), torch.tensor([5000])).item() == 5000
