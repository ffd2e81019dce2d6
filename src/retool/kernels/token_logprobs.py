"""Log-probabilities of tokens under softmax(states · weightᵀ), without the logits of all of them at once.

Log-softmax over a large vocabulary takes several times the memory of everything else a small model does. Here logits
exist for all rows and a tile of the vocabulary at a time, and once more in the backward pass: the weight is read once
in each, and its gradient is written tile by tile, each summed over all rows in one product. The idea is that of cut
cross-entropy (arXiv 2411.09009), on plain tensors.

Suffixes: N rows (tokens), D hidden size, V vocabulary, v a tile of it, K tiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from retool.kernels.products import multiply

_TILE_ELEMENTS = {"cpu": 1 << 22}  # of [N, v]: 16 MiB in fp32, which caches hold
_TILE_ELEMENTS_ELSEWHERE = 1 << 26
_NARROWEST_TILE = 1024


def token_logprobs(
    states_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    ids_N: torch.Tensor,
    *,
    scale: float = 1.0,
    vocabulary: int | None = None,
    entropy: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """log softmax(scale · (states · weightᵀ + bias)) at `ids_N`, [N], the entropies of these distributions, [N], or
    None, and whether no other token is more probable, [N]. Only the first `vocabulary` rows of the weight take part.
    fp32, but for the products, which are of the type of the weight. Differentiable in states, weight and bias."""
    vocabulary = weight_VD.shape[0] if vocabulary is None else vocabulary
    settings = (scale, vocabulary, entropy)
    logprobs_N, entropies_N, is_top_N = _TokenLogprobs.apply(states_ND, weight_VD, bias_V, ids_N, *settings)
    return logprobs_N, entropies_N if entropy else None, is_top_N


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        ids_N: torch.Tensor,
        scale: float,
        vocabulary: int,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen_N = torch.zeros(len(states_ND), device=states_ND.device)
        largest, totals, means = [], [], []  # of each tile: max z, Σ exp(z − max z), and the mean of z − max z
        for tile in _tiles(len(states_ND), vocabulary, states_ND.device):
            logits_Nv = _logits(states_ND, weight_VD, bias_V, scale, tile)
            inside_N, local_N1 = _inside(ids_N, tile)
            chosen_N = torch.where(inside_N, logits_Nv.gather(1, local_N1).squeeze(1), chosen_N)
            largest.append(logits_Nv.amax(1))
            logits_Nv.sub_(largest[-1][:, None])
            weights_Nv = logits_Nv.exp() if entropy else logits_Nv.exp_()
            totals.append(weights_Nv.sum(1))
            if entropy:
                means.append(weights_Nv.mul_(logits_Nv).sum(1) / totals[-1])
        largest_KN = torch.stack(largest)
        largest_N = largest_KN.amax(0)
        gaps_KN = largest_KN - largest_N
        totals_KN = torch.stack(totals) * gaps_KN.exp()
        total_N = totals_KN.sum(0)
        entropies_N = torch.zeros_like(chosen_N)
        if entropy:
            entropies_N = total_N.log() - (totals_KN * (torch.stack(means) + gaps_KN)).sum(0) / total_N
        # Maximum and total stay apart: their joint logarithm would be rounded at the size of the logits.
        ctx.save_for_backward(states_ND, weight_VD, bias_V, ids_N, largest_N, total_N, entropies_N)
        ctx.scale, ctx.vocabulary = scale, vocabulary
        ctx.set_materialize_grads(False)
        is_top_N = chosen_N == largest_N
        ctx.mark_non_differentiable(is_top_N)
        return chosen_N - largest_N - total_N.log(), entropies_N, is_top_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_N: torch.Tensor | None, entropy_grad_N: torch.Tensor | None, _: None
    ) -> tuple[torch.Tensor | None, ...]:
        """With g and h the gradients of log-probability and entropy H, that of logit v, but for the scale, is
        g (1[v = id] − p) − h p (log p + H)."""
        states_ND, weight_VD, bias_V, ids_N, largest_N, total_N, entropies_N = ctx.saved_tensors
        grad_N = torch.zeros_like(total_N) if grad_N is None else grad_N
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        states_grad_ND = torch.zeros_like(states_ND, dtype=torch.float32) if wants_states else None
        weight_grad_VD = torch.empty_like(weight_VD) if wants_weight else None
        bias_grad_V = torch.zeros_like(bias_V) if wants_bias else None
        for tile in _tiles(len(states_ND), ctx.vocabulary, states_ND.device):
            grads_Nv = _logits(states_ND, weight_VD, bias_V, ctx.scale, tile).sub_(largest_N[:, None])
            if entropy_grad_N is None:
                grads_Nv.exp_().mul_((-grad_N / total_N)[:, None])
            else:
                probs_Nv = grads_Nv.exp().div_(total_N[:, None])
                grads_Nv.add_((entropies_N - total_N.log())[:, None]).mul_(entropy_grad_N[:, None])
                grads_Nv.add_(grad_N[:, None]).mul_(probs_Nv).neg_()
            inside_N, local_N1 = _inside(ids_N, tile)
            grads_Nv.scatter_add_(1, local_N1, torch.where(inside_N, grad_N, 0.0)[:, None])
            grads_Nv = grads_Nv.mul_(ctx.scale).to(weight_VD.dtype)
            if states_grad_ND is not None:
                states_grad_ND += multiply(grads_Nv, weight_VD[tile].t())
            if weight_grad_VD is not None:
                weight_grad_VD[tile] = multiply(grads_Nv.t(), states_ND.t())
            if bias_grad_V is not None:
                bias_grad_V[tile] = grads_Nv.sum(0)
        if weight_grad_VD is not None:
            weight_grad_VD[ctx.vocabulary :] = 0
        states_grad_ND = None if states_grad_ND is None else states_grad_ND.to(states_ND.dtype)
        return states_grad_ND, weight_grad_VD, bias_grad_V, None, None, None, None


def _tiles(rows: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    width = max(_NARROWEST_TILE, _TILE_ELEMENTS.get(device.type, _TILE_ELEMENTS_ELSEWHERE) // max(rows, 1))
    for begin in range(0, vocabulary, width):
        yield slice(begin, min(begin + width, vocabulary))


def _logits(
    states_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, scale: float, tile: slice
) -> torch.Tensor:
    logits_Nv = multiply(states_ND, weight_VD[tile], None if bias_V is None else bias_V[tile]).float()
    return logits_Nv if scale == 1.0 else logits_Nv.mul_(scale)


def _inside(ids_N: torch.Tensor, tile: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Which ids lie in a tile, and each one's place in it, [N, 1]; for the others some place."""
    inside_N = (ids_N >= tile.start) & (ids_N < tile.stop)
    return inside_N, (ids_N - tile.start).clamp(0, tile.stop - tile.start - 1)[:, None]
