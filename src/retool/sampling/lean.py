"""A lean forward pass of Llama-like models in fp32 on a CPU: the model's own, in fewer and cheaper steps.

In a decode step of a small model much of the time goes not into products but into what surrounds them: some sixty
calls of modules, masks that the engine's attention does not use, half a dozen operations for each norm and a dozen for
each rotation. Here the modules that hold no products are passed over. Those that do (embedding, projections, head) and
the rotary table are called as the modules they are, so that adapters, quantised weights and hooks of theirs count.

Suffixes: N rows, Q new tokens of a row, E hidden size, B query and key heads side by side, K key heads, D head size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from retool.sampling.cache import RowCache
from retool.sampling.scheduler import Row

_FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}  # whose code is as below
_PROBED_ROWS = 3
_GAP = 1e-4  # a share of the logits; another order of operations makes a tenth of that in a deep model


class LeanForward:
    """The forward pass of `model`, to be called where `is_exact`: where it is sure to say what the model would.

    It must be so by what the model is made of (`inspect`) and by numbers (`compare`); else the model itself is called.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._agrees = False
        self.is_exact = False

    def compare(self, read: Callable[[list[Row], list[list[int]]], torch.Tensor], rows: int, capacity: int) -> None:
        """Have the model and this read the same, where they may agree at all: a chunk and one more token, in a few of
        the `rows` (of `capacity` tokens), which have read texts of several lengths before.

        `read` appends ids to rows and returns the logits after them, [N, V]; it calls this where `is_exact`.
        """
        rows = min(rows, _PROBED_ROWS)
        length = 2 * (rows - 1) + 5
        if capacity < length or not _is_known(self._model):
            return

        def logits() -> torch.Tensor:
            vocabulary = self._model.config.vocab_size
            probed = [Row([(row * length + n) % vocabulary for n in range(length)], index=row) for row in range(rows)]

            def read_on(some: list[Row], tokens: int) -> torch.Tensor:
                return read(some, [row.ids[row.length : row.length + tokens] for row in some])

            for first in range(1, rows):
                read_on(probed[first:], 2)
            return torch.cat([read_on(probed, 4), read_on(probed, 1)])

        own, self._agrees = logits(), True
        self.inspect()
        try:
            self._agrees = bool((logits() - own).norm() <= _GAP * own.norm())
        except (AttributeError, RuntimeError, TypeError):  # a version of transformers that names things otherwise
            self._agrees = False
        self.inspect()

    def inspect(self) -> None:
        """Look at the model as it is now; hooks and adapters may have come since."""
        self.is_exact = self._agrees and _is_known(self._model)
        if self.is_exact:
            self._layers = [
                _modules(layer) for layer in self._model.model.layers[: self._model.config.num_hidden_layers]
            ]
            self._epsilon = torch.tensor(self._model.config.rms_norm_eps)

    def __call__(self, ids_NQ: torch.Tensor, positions_NQ: torch.Tensor, cache: RowCache) -> torch.Tensor:
        """Logits after the last token of each row, [N, V]. `cache` has been aimed at the rows."""
        trunk = self._model.model
        hidden_NQE = trunk.embed_tokens(ids_NQ)
        cos_NQD, sin_NQD = trunk.rotary_emb(hidden_NQE, position_ids=positions_NQ)
        first, second = sin_NQD.chunk(2, -1)
        cos, sin = cos_NQD.unsqueeze(2), torch.cat((-first, second), -1).unsqueeze(2)
        for layer in self._layers:
            x_NQE = self._norm(layer.input_norm, hidden_NQE)
            hidden_NQE = hidden_NQE + self._attend(layer, x_NQE, cos, sin, cache)
            x_NQE = self._norm(layer.mlp_norm, hidden_NQE)
            gated = layer.activation(layer.gate(x_NQE)).mul_(layer.up(x_NQE))
            hidden_NQE = hidden_NQE + layer.down(gated)
        return self._model.lm_head(self._norm(trunk.norm, hidden_NQE[:, -1:]))[:, -1]

    def _attend(
        self, layer: _Modules, x_NQE: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, cache: RowCache
    ) -> torch.Tensor:
        """Queries and keys are turned together: x · cos + (x, its halves swapped) · (sin, its first half negated)."""
        attention = layer.attention
        number, size = attention.layer_idx, attention.head_dim
        heads = (*x_NQE.shape[:2], -1, size)
        query, key, value_NQKD = layer.query(x_NQE), layer.key(x_NQE), layer.value(x_NQE).view(heads)
        if layer.query_norm is not None:
            query = self._norm(layer.query_norm, query.view(heads)).flatten(2)
            key = self._norm(layer.key_norm, key.view(heads)).flatten(2)
        both_NQBD = torch.cat((query, key), -1).view(heads)
        swapped_NQBD = both_NQBD.roll(size // 2, -1)
        turned_NBQD = both_NQBD.mul_(cos).addcmul_(swapped_NQBD, sin).transpose(1, 2)
        queries = query.shape[-1] // size
        cache.update(turned_NBQD[:, queries:], value_NQKD.transpose(1, 2), number)
        out = cache.attend(turned_NBQD[:, :queries], number, attention.scaling, None, None)
        return layer.out(out.flatten(2))

    def _norm(self, norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """RMSNorm (Zhang, Sennrich 2019) from the length of each vector."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.addcmul(self._epsilon, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).mul_(norm.weight)


class _Modules(NamedTuple):
    """Those of a decoder layer, at hand: to look one up in its parent costs as much as a small operation."""

    input_norm: nn.Module
    attention: nn.Module
    query: nn.Module
    key: nn.Module
    value: nn.Module
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    out: nn.Module
    mlp_norm: nn.Module
    gate: nn.Module
    activation: nn.Module
    up: nn.Module
    down: nn.Module


def _modules(layer: nn.Module) -> _Modules:
    attention, mlp = layer.self_attn, layer.mlp
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    norms = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    gated = layer.post_attention_layernorm, mlp.gate_proj, mlp.act_fn, mlp.up_proj, mlp.down_proj
    return _Modules(layer.input_layernorm, attention, *projections, *norms, attention.o_proj, *gated)


def _is_known(model: PreTrainedModel) -> bool:
    """Is every module that is passed over transformers' own, without hooks and without a `forward` put in its place?"""
    kind = model.config.model_type
    home, family = f"transformers.models.{kind}.modeling_{kind}", _FAMILIES.get(kind)
    if family is None or model.device.type != "cpu" or model.dtype is not torch.float32:
        return False
    try:
        return all(
            type(module).__module__ == home
            and type(module).__name__ == family + name
            and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
            for module, name in _passed_over(model)
        )
    except AttributeError:  # something else stands in the place of a layer
        return False


def _passed_over(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str]]:
    """With what the name of its class ends with."""
    yield from [(model, "ForCausalLM"), (model.model, "Model"), (model.model.norm, "RMSNorm")]
    for layer in model.model.layers:
        yield from [(layer, "DecoderLayer"), (layer.self_attn, "Attention"), (layer.mlp, "MLP")]
        modules = _modules(layer)
        norms = [modules.input_norm, modules.mlp_norm, modules.query_norm, modules.key_norm]
        yield from ((norm, "RMSNorm") for norm in norms if norm is not None)
