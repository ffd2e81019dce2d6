"""Linear layers through oneDNN against the same layers without it, and against fp64."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from retool.kernels import products
from retool.kernels.products import lay_out_for_few_rows, multiply, take_fast_products

SHAPES = [(600, 96, 64), (512, 192, 576), (2048, 64, 128)]  # rows, inputs, outputs: all large enough to be taken


def gradients(layer: nn.Module, rows: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    rows = rows.clone().requires_grad_()
    layer.zero_grad()
    result = layer(rows)
    result.backward(grad)
    return [result.detach(), rows.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_both_backward_products_are_as_exact_as_mkls(shape: tuple[int, int, int], bias: bool) -> None:
    torch.manual_seed(0)
    t, k, n = shape
    layer, rows, grad = nn.Linear(k, n, bias=bias), torch.randn(2, t // 2, k), torch.randn(2, t // 2, n)
    exact = gradients(copy.deepcopy(layer).double(), rows.double(), grad.double())
    before = gradients(layer, rows, grad)
    take_fast_products(layer)
    after = gradients(layer, rows, grad)
    for ours, plain, truth in zip(after, before, exact, strict=True):
        torch.testing.assert_close(ours.double(), truth, atol=1e-5 * float(truth.abs().max()), rtol=0)
        torch.testing.assert_close(plain.double(), truth, atol=1e-5 * float(truth.abs().max()), rtol=0)


def test_the_same_product_has_the_same_bits() -> None:
    layer, rows, grad = nn.Linear(128, 256), torch.randn(300, 128), torch.randn(300, 256)
    take_fast_products(layer)
    torch.testing.assert_close(gradients(layer, rows, grad), gradients(layer, rows, grad), atol=0, rtol=0)


def test_gradients_come_in_any_layout() -> None:
    """The gradient of a sum is one number stretched over the whole shape."""
    layer, rows = nn.Linear(128, 256), torch.randn(300, 128)
    before = gradients(layer, rows, torch.ones(()).expand(300, 256))
    take_fast_products(layer)
    torch.testing.assert_close(gradients(layer, rows, torch.ones(()).expand(300, 256)), before, atol=1e-3, rtol=1e-4)


def test_frozen_weights_get_no_gradient() -> None:
    layer = nn.Linear(128, 256).requires_grad_(False)
    take_fast_products(layer)
    rows = torch.randn(300, 128, requires_grad=True)
    layer(rows).sum().backward()
    assert layer.weight.grad is None and rows.grad is not None


@pytest.mark.skipif(not products._works(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("gradients_on", [True, False])
def test_what_is_no_large_product_of_plain_fp32_goes_the_usual_way(
    gradients_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    multiply_fast = products._multiply
    monkeypatch.setattr(products, "_multiply", lambda *operands: taken.append(1) or multiply_fast(*operands))
    large, rows = nn.Linear(128, 256), torch.randn(300, 128)
    half, small = nn.Linear(128, 256, dtype=torch.bfloat16), nn.Linear(4, 4)
    other = nn.Bilinear(2, 2, 2)
    for layer in (large, half, small, other):
        take_fast_products(layer)
    assert "forward" not in vars(other)
    with torch.set_grad_enabled(gradients_on):
        half(rows.bfloat16())
        small(torch.randn(1000, 4))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert large(rows).dtype is torch.bfloat16
        assert not taken
        large(rows)
        assert taken == [1]


def test_operands_may_be_strided() -> None:
    rows, weight = torch.randn(128, 300).t(), torch.randn(128, 256).t()
    torch.testing.assert_close(multiply(rows, weight), rows @ weight.t(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_lie_otherwise_are_the_same_weights(tied: bool, tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tied))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lay_out_for_few_rows(model)
    assert model.model.layers[0].mlp.up_proj.weight.stride() == (1, 64)
    assert model.lm_head.weight.is_contiguous() and model.model.embed_tokens.weight.is_contiguous()
    model.save_pretrained(tmp_path)
    for state in (model.state_dict(), LlamaForCausalLM.from_pretrained(tmp_path).state_dict()):
        torch.testing.assert_close(state, before, rtol=0, atol=0)
