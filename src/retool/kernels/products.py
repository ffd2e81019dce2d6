"""Matrix products in fp32 on a CPU, through oneDNN: those of linear layers forward and backward, from the same weights.

PyTorch leaves products in fp32 to MKL, which has no fast path for every processor: on an AMD EPYC oneDNN is twice as
fast (benchmarks/learner/products.py), on others about as fast. Both add up in fp32 and round alike.

Suffixes: T rows, K values that are summed over, N columns of the result.
"""

from __future__ import annotations

from functools import cache
from types import MethodType

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

_SMALLEST_PRODUCT = 3 << 19  # multiplications; below, the call itself takes longer than it saves


def take_fast_products(model: nn.Module) -> None:
    """Let the linear layers of `model` multiply through oneDNN, in inference and in training.

    Each call of a layer decides by its operands: another device, another type, autocast, a weight that is not a plain
    tensor at that moment (a shard), or a build of PyTorch without oneDNN, and it is what it was. Layers that are more
    than an `nn.Linear` (quantized, with adapters) are left alone.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_forward, module)


def lay_out_for_few_rows(model: PreTrainedModel) -> None:
    """Let the weights of linear layers lie in memory as oneDNN reads them, transposed: same values, same shape.

    For 16 to 64 rows, a decode step, products take 12 to 20 % less time; for many rows it makes no difference. The
    output head, large and perhaps the embedding too, which is read row by row, stays as it is.
    """
    head = model.get_output_embeddings()
    for module in model.modules():
        weight = module.weight if type(module) is nn.Linear and module is not head else None
        if type(weight) is nn.Parameter and is_supported(weight):
            weight.data = weight.data.t().contiguous().t()


def _forward(layer: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    parameters = layer._parameters  # a quarter of the time of `layer.weight`
    weight, bias = parameters["weight"], parameters["bias"]
    if not _is_fast(rows, weight) or type(weight) is not nn.Parameter or torch.is_autocast_enabled(rows.device.type):
        return functional.linear(rows, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(rows, weight, bias)
    return _multiply(rows, weight, bias)


def multiply(rows: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> torch.Tensor:
    """rows [..., K] · weightᵀ + bias, [..., N], by the faster library. Without gradients; strides are taken as they
    are, so that the backward products are `multiply(dY, weight.t())` and `multiply(dY.t(), rows.t())`."""
    if _is_fast(rows, weight_NK):
        return _multiply(rows, weight_NK, bias_N)
    return functional.linear(rows, weight_NK, bias_N)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight_NK)
        return _multiply(rows, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight_NK = ctx.saved_tensors
        grad_TN, rows_TK = grad.reshape(-1, grad.shape[-1]), rows.reshape(-1, rows.shape[-1])
        grad_rows = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_rows = multiply(grad_TN, weight_NK.t()).view(rows.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = multiply(grad_TN.t(), rows_TK.t())
        if ctx.needs_input_grad[2]:
            grad_bias = grad_TN.sum(0)
        return grad_rows, grad_weight, grad_bias


def _is_fast(rows: torch.Tensor, weight_NK: torch.Tensor) -> bool:
    if rows.numel() * weight_NK.shape[0] < _SMALLEST_PRODUCT:
        return False
    return is_supported(rows) and is_supported(weight_NK)


def is_supported(operand: torch.Tensor) -> bool:
    """Whether oneDNN can multiply it here."""
    return operand.dtype is torch.float32 and operand.is_cpu and _works()


def _multiply(rows: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
    """What PyTorch's own compiler calls for a linear layer; the last three arguments fuse nothing."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight_NK, bias_N, "none", [], "")


@cache
def _works() -> bool:
    """The operation is not part of PyTorch's public interface, so it is tried before it is used."""
    if not torch.backends.mkldnn.is_available():
        return False
    rows, weight, bias = (
        torch.linspace(-1, 1, 35).view(7, 5).t(),
        torch.linspace(-2, 1, 21).view(7, 3).t(),
        torch.ones(3),
    )
    try:
        with torch.no_grad():
            return torch.allclose(_multiply(rows, weight, bias), functional.linear(rows, weight, bias), atol=1e-4)
    except (AttributeError, RuntimeError):
        return False
