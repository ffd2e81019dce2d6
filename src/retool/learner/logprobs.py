"""Log-probabilities of given tokens, without ever holding [tokens, vocabulary] for a whole batch.

The trunk runs once over a row of sequences (`packing`, `attention`). A head that is a plain linear layer is computed
together with the softmax in tiles of the vocabulary (`kernels.token_logprobs`); any other head, and distributions that
leave tokens out, run over chunks of the tokens, each recomputed in the backward pass.

Suffixes: B sequences, T tokens of the row, N those that count, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.kernels.token_logprobs import token_logprobs
from retool.learner.attention import Packing, packed
from retool.learner.packing import Batch
from retool.sampling.choose import transform_logits

_CHUNK_ELEMENTS = 1 << 24  # of [chunk, V]: 64 MiB in fp32
_UNTRANSFORMED = SamplingConfig()


@dataclass(frozen=True, slots=True)
class TokenScores:
    """For the N target tokens of a batch in their order: `logprobs_N`, `entropies_N` of the distribution they are
    scored under (None unless asked for), `is_top_N`, whether no other token is more probable, and `states_ND`, the
    trunk's states that predict them."""

    logprobs_N: torch.Tensor
    entropies_N: torch.Tensor | None
    is_top_N: torch.Tensor
    states_ND: torch.Tensor


def score(
    model: PreTrainedModel, batch: Batch, sampling: SamplingConfig = _UNTRANSFORMED, entropy: bool = False
) -> TokenScores:
    """Score the target tokens of a batch under the transformed distribution, which keeps each of them: all
    log-probabilities are finite. Differentiable.

    With FSDP2 (`fully_shard` on layers and model) this is a forward pass of the root: its hooks gather the weights that
    belong to no layer, embedding and head, for trunk and head alike.
    """
    if _is_sharded(model) and not hasattr(model, "score_tokens"):
        model.score_tokens = MethodType(_score, model)
        torch.distributed.fsdp.register_fsdp_forward_method(model, "score_tokens")
    run = model.score_tokens if _is_sharded(model) else MethodType(_score, model)
    return TokenScores(*run(batch, sampling, entropy))


def target_states(trunk: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The last states of a trunk that predict the target tokens, [N, D]."""
    with packed(trunk, Packing(batch.lengths_B.tolist(), batch.lengths_B.device)):
        output = trunk(input_ids=batch.ids_1T, position_ids=batch.positions_1T, use_cache=False)
    return output.last_hidden_state[0, :-1][batch.targets_T[1:]]


def _is_sharded(model: PreTrainedModel) -> bool:
    return torch.distributed.is_available() and isinstance(model, torch.distributed.fsdp.FSDPModule)


def _score(
    model: PreTrainedModel, batch: Batch, sampling: SamplingConfig, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    states_ND = target_states(model.base_model, batch)
    ids_N = batch.ids_1T[0][batch.targets_T]
    head, after = model.get_output_embeddings(), _AfterHead.of(model.config.get_text_config())
    vocabulary = head(states_ND[:0]).shape[-1]  # a hook may cut the ids that the tokenizer does not have
    if _is_plain(head) and _keeps_all(sampling) and after.softcap is None:
        scale = after.scale / (sampling.temperature or 1.0)
        settings = {"scale": scale, "vocabulary": vocabulary, "entropy": entropy}
        found = token_logprobs(states_ND, head.weight, head.bias, ids_N, **settings)
    else:
        found = _in_chunks(head, after, states_ND, ids_N, sampling, entropy, vocabulary)
    return *found, states_ND


@dataclass(frozen=True, slots=True)
class _AfterHead:
    """What a model does to its logits after the head, as far as its config has a field for it: Granite and Cohere scale
    them, Gemma caps them softly. `compatibility.check_learnable` refuses models that do something else."""

    scale: float
    softcap: float | None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> _AfterHead:
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale, getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits_NV: torch.Tensor) -> torch.Tensor:
        logits_NV = logits_NV if self.scale == 1.0 else logits_NV * self.scale
        return logits_NV if self.softcap is None else torch.tanh(logits_NV / self.softcap) * self.softcap


def _is_plain(head: nn.Module) -> bool:
    """Whether the head is a matrix, and a bias, in one piece; of hooks only such are known that cut ids off."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter


def _keeps_all(sampling: SamplingConfig) -> bool:
    return sampling.temperature > 0 and sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0


def _in_chunks(
    head: nn.Module,
    after: _AfterHead,
    states_ND: torch.Tensor,
    ids_N: torch.Tensor,
    sampling: SamplingConfig,
    entropy: bool,
    vocabulary: int,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    chunk = max(1, _CHUNK_ELEMENTS // vocabulary)
    results = []
    for begin in range(0, max(1, len(ids_N)), chunk):
        part = states_ND[begin : begin + chunk], ids_N[begin : begin + chunk]
        if len(ids_N) > chunk and torch.is_grad_enabled():
            results.append(checkpoint(_head, head, after, *part, sampling, entropy, use_reentrant=False))
        else:
            results.append(_head(head, after, *part, sampling, entropy))
    logprobs, entropies, are_top = zip(*results, strict=True)
    return torch.cat(logprobs), torch.cat(entropies) if entropy else None, torch.cat(are_top)


def _head(
    head: nn.Module,
    after: _AfterHead,
    states_ND: torch.Tensor,
    ids_N: torch.Tensor,
    sampling: SamplingConfig,
    entropy: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    logits_NV = transform_logits(after(head(states_ND)), sampling, ids_N)
    logprobs_NV = logits_NV.log_softmax(-1)
    chosen_N = logprobs_NV.gather(-1, ids_N[:, None]).squeeze(-1)
    is_top_N = chosen_N.detach() == logprobs_NV.detach().amax(-1)
    if not entropy:
        return chosen_N, None, is_top_N
    probs_NV = logprobs_NV.exp()
    finite_NV = logprobs_NV.masked_fill(probs_NV == 0, 0.0)  # before the product: 0 · −inf has a gradient of NaN
    return chosen_N, -(probs_NV * finite_NV).sum(-1), is_top_N
