"""Our own causal attention against its formula in fp64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from retool.kernels import attention
from retool.kernels.attention import causal_attention, is_faster

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))  # key heads, group, D, V


def inputs_of(heads: int, groups: int, size: int, value_size: int, tokens: int) -> list[torch.Tensor]:
    """As projections leave them: heads beside each other in memory."""
    shapes = [(heads, size), (groups, size), (groups, value_size)]
    return [torch.randn(1, tokens, *shape).transpose(1, 2).requires_grad_() for shape in shapes]


def formula(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scale: float
) -> torch.Tensor:
    tokens, shared = sum(lengths), query.shape[1] // key.shape[1]
    number = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    seen = (number[:, None] == number) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    scores = scale * query @ key.repeat_interleave(shared, 1).transpose(-1, -2)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ value.repeat_interleave(shared, 1)).transpose(1, 2)


def assert_is_the_formula(inputs: list[torch.Tensor], lengths: list[int], scale: float) -> None:
    found = causal_attention(*inputs, lengths, scale)
    exact_inputs = [part.detach().double().requires_grad_() for part in inputs]
    expected = formula(*exact_inputs, lengths, scale)
    grad = torch.randn_like(found)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)
    gradients = torch.autograd.grad(found, inputs, grad)
    for ours, exact in zip(gradients, torch.autograd.grad(expected, exact_inputs, grad.double()), strict=True):
        torch.testing.assert_close(ours.double(), exact, atol=2e-5, rtol=1e-4)


@settings(max_examples=40)
@given(sizes=SIZES, lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), block=st.integers(1, 12))
def test_results_and_gradients_are_those_of_the_formula(
    sizes: tuple[int, int, int, int], lengths: list[int], block: int
) -> None:
    groups, shared, size, value_size = sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK", block)
        assert_is_the_formula(inputs_of(groups * shared, groups, size, value_size, sum(lengths)), lengths, 0.3)


def test_so_they_are_where_every_product_is_large() -> None:
    lengths = [600, 257, 128]
    inputs = inputs_of(6, 2, 64, 64, sum(lengths))
    assert all(is_faster(inputs[0], inputs[1], length) for length in lengths)
    assert_is_the_formula(inputs, lengths, 0.125)


def test_with_and_without_gradients_the_bits_are_the_same() -> None:
    inputs = inputs_of(6, 2, 64, 64, 300)
    with torch.no_grad():
        before = causal_attention(*inputs, [300], 0.125)
    assert torch.equal(before, causal_attention(*inputs, [300], 0.125))


def test_a_token_does_not_depend_on_what_follows_or_lies_beside() -> None:
    query, key, value = (part.detach() for part in inputs_of(6, 2, 64, 64, 500))
    before = causal_attention(query, key, value, [300, 200], 0.125)
    for part in (query, key, value):
        part[:, :, 290:] = torch.randn_like(part[:, :, 290:])
    after = causal_attention(query, key, value, [300, 200], 0.125)
    torch.testing.assert_close(after[:, :290], before[:, :290], atol=1e-6, rtol=1e-5)


def test_what_the_fused_kernel_does_as_well_is_left_to_it() -> None:
    query, key, _ = inputs_of(6, 2, 64, 64, 300)
    assert is_faster(query, key, 300)
    assert not is_faster(query, key, 100)
    assert not is_faster(query, query, 300)
    assert not is_faster(query[..., :32], key[..., :32], 300)
    assert not is_faster(query.bfloat16(), key.bfloat16(), 300)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_faster(query, key, 300)
    result = functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(causal_attention(query, key, key, [300], 0.125), result.transpose(1, 2))
