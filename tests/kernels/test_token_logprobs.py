"""Log-probabilities in tiles of the vocabulary against logits, log_softmax and gather."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retool.kernels import token_logprobs as tiles
from retool.kernels.token_logprobs import token_logprobs


def plain(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    ids: torch.Tensor,
    scale: float = 1.0,
    vocabulary: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = scale * torch.nn.functional.linear(states, weight, bias).float()[:, :vocabulary]
    logprobs = logits.log_softmax(-1)
    return logprobs.gather(1, ids[:, None]).squeeze(1), -(logprobs.exp() * logprobs).sum(-1)


@given(
    rows=st.integers(0, 40),
    vocabulary=st.integers(1, 60),
    cut=st.integers(0, 10),
    scale=st.sampled_from([1.0, 1 / 0.7, 0.25]),
    with_bias=st.booleans(),
    with_entropy=st.booleans(),
    width=st.integers(1, 70),
    seed=st.integers(0, 5),
)
def test_values_and_gradients_are_those_of_the_plain_way(
    rows: int, vocabulary: int, cut: int, scale: float, with_bias: bool, with_entropy: bool, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    states, weight = torch.randn(rows, 8), torch.randn(vocabulary + cut, 8)
    bias = torch.randn(vocabulary + cut) if with_bias else None
    ids, upstream, other = torch.randint(vocabulary, (rows,)), torch.randn(rows), torch.randn(rows)
    leaves = [x.requires_grad_() for x in (states, weight, bias) if x is not None]
    settings = {"scale": scale, "vocabulary": vocabulary}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_NARROWEST_TILE", 1)
        patch.setattr(tiles, "_TILE_ELEMENTS", {"cpu": width * rows})
        logprobs, entropies, is_top = token_logprobs(states, weight, bias, ids, **settings, entropy=with_entropy)
        loss = (upstream * logprobs).sum()
        ours = torch.autograd.grad(loss + (other * entropies).sum() if with_entropy else loss, leaves)
    expected, expected_entropies = plain(states, weight, bias, ids, **settings)
    loss = (upstream * expected).sum()
    theirs = torch.autograd.grad(loss + (other * expected_entropies).sum() if with_entropy else loss, leaves)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    assert (entropies is None) is not with_entropy
    if with_entropy:
        torch.testing.assert_close(entropies, expected_entropies, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    logits = torch.nn.functional.linear(states, weight, bias)[:, :vocabulary]
    assert is_top.tolist() == [row.argmax() == token for row, token in zip(logits, ids, strict=True)]


def test_logits_far_beyond_what_exp_can_hold_have_finite_scores() -> None:
    states, weight = torch.full((3, 4), 50.0, requires_grad=True), torch.randn(30, 4) * 50
    logprobs, entropies, _ = token_logprobs(states, weight, None, torch.arange(3), entropy=True)
    (logprobs.sum() + entropies.sum()).backward()
    assert all(x.isfinite().all() for x in (logprobs, entropies, states.grad))


def test_entropies_that_no_loss_uses_leave_the_gradient_alone() -> None:
    states, weight, ids = torch.randn(9, 8), torch.randn(30, 8, requires_grad=True), torch.arange(9)
    for entropy in (True, False):
        token_logprobs(states, weight, None, ids, entropy=entropy)[0].sum().backward()
    first = weight.grad.clone()
    weight.grad = None
    token_logprobs(states, weight, None, ids)[0].sum().backward()
    torch.testing.assert_close(first, 2 * weight.grad)


def test_of_a_head_in_bf16_all_but_the_products_is_fp32() -> None:
    """The gradient of the weight is rounded to bf16 once, not once a tile or a chunk."""
    torch.manual_seed(0)
    states, weight = torch.randn(64, 32).bfloat16().requires_grad_(), torch.randn(5000, 32).bfloat16().requires_grad_()
    ids = torch.randint(5000, (64,))
    logprobs, _, _ = token_logprobs(states, weight, None, ids)
    expected, _ = plain(states, weight, None, ids)
    assert logprobs.dtype is torch.float32
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(x.sum(), [states, weight]) for x in (logprobs, expected))
    assert [x.dtype for x in ours] == [torch.bfloat16] * 2
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)


def test_a_frozen_head_costs_no_gradient_of_its_weight() -> None:
    states, weight = torch.randn(9, 8, requires_grad=True), torch.randn(30, 8)
    token_logprobs(states, weight, None, torch.arange(9))[0].sum().backward()
    assert weight.grad is None and states.grad is not None
