"""What the estimators of the KL estimate, as values and as losses: expectations over a small vocabulary, exactly."""

from __future__ import annotations

import pytest
import torch

from retool.objectives.divergence import bounded_exp, k1, k2, k3

EXACT = {"atol": 1e-6, "rtol": 1e-6}
LOGITS, REFERENCE = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Q = REFERENCE.log_softmax(0)


def policy() -> tuple[torch.Tensor, torch.Tensor]:
    logits = LOGITS.clone().requires_grad_()
    return logits, logits.log_softmax(0)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum()


def expected_value(estimator: object) -> torch.Tensor:
    _, p = policy()
    return (p.exp() * estimator(p, Q)).sum().detach()


def expected_gradient(estimator: object) -> torch.Tensor:
    """E over tokens drawn from the policy of the estimate's gradient; drawing has no gradient."""
    logits, p = policy()
    return torch.autograd.grad((p.exp().detach() * estimator(p, Q)).sum(), logits)[0]


def gradient_of_kl(forward: bool) -> torch.Tensor:
    logits, p = policy()
    return torch.autograd.grad(kl(p, Q) if forward else kl(Q, p), logits)[0]


def test_k1_and_k3_are_unbiased_values_and_k2_is_not() -> None:
    _, p = policy()
    true = kl(p, Q).detach()
    torch.testing.assert_close(expected_value(k1), true, **EXACT)
    torch.testing.assert_close(expected_value(k3), true, **EXACT)
    assert abs(expected_value(k2) - true) > 0.005


def test_k2_as_a_loss_has_the_gradient_of_the_kl() -> None:
    torch.testing.assert_close(expected_gradient(k2), gradient_of_kl(forward=True), **EXACT)


def test_k1_as_a_loss_has_no_gradient_on_average() -> None:
    torch.testing.assert_close(expected_gradient(k1), torch.zeros_like(LOGITS), **EXACT)


def test_k3_as_a_loss_has_the_gradient_of_the_kl_in_the_other_direction() -> None:
    torch.testing.assert_close(expected_gradient(k3), gradient_of_kl(forward=False), **EXACT)
    assert (gradient_of_kl(forward=True) - gradient_of_kl(forward=False)).abs().max() > 0.01


def test_k3_is_never_negative_and_varies_less_than_k1() -> None:
    _, p = policy()
    assert (k3(p, Q) >= 0).all()
    second_moments = [float((p.exp() * estimator(p, Q).square()).sum().detach()) for estimator in (k3, k1)]
    assert second_moments[0] < second_moments[1]


@pytest.mark.parametrize("gap", [1e-4, -1e-3, 1e-2, -0.5])
def test_k3_keeps_its_digits_where_policies_are_close(gap: float) -> None:
    exact = k3(torch.tensor([gap], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(k3(torch.tensor([gap]), torch.zeros(1)).double(), exact, atol=0, rtol=2e-3)


def test_ratios_stay_finite() -> None:
    assert bounded_exp(torch.tensor([-1e9, 1e9])).tolist() == pytest.approx([2.0611536e-9, 4.8516520e8])
    assert k3(torch.tensor([-900.0]), torch.zeros(1)).isfinite().all()
