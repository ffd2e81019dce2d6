"""Log-probabilities of given tokens, without ever holding [tokens, vocabulary] for a whole batch.

The trunk runs once; the head runs over chunks of the tokens that count, each recomputed in the backward pass.
Suffixes: B sequences, T positions, N tokens that count, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from retool.config.schema import SamplingConfig
from retool.errors import UsageError
from retool.learner.batching import Batch
from retool.sampling.choose import transform_logits

_CHUNK_ELEMENTS = 1 << 24  # of [chunk, V]: 64 MiB in fp32
_UNTRANSFORMED = SamplingConfig()


@dataclass(frozen=True, slots=True)
class TokenScores:
    """For the N target tokens of a batch in row order: `logprobs_N`, `entropies_N` of the distribution they are scored
    under (None unless asked for), and `states_ND`, the trunk's states that predict them."""

    logprobs_N: torch.Tensor
    entropies_N: torch.Tensor | None
    states_ND: torch.Tensor


def score(
    model: PreTrainedModel, batch: Batch, sampling: SamplingConfig = _UNTRANSFORMED, entropy: bool = False
) -> TokenScores:
    """Score the target tokens of a batch under the transformed distribution, which keeps each of them: all
    log-probabilities are finite. Differentiable."""
    states_BTD = model.base_model(input_ids=batch.ids_BT, use_cache=False).last_hidden_state
    states_ND = states_BTD[:, :-1][batch.targets_BT[:, 1:]]
    ids_N = batch.ids_BT[:, 1:][batch.targets_BT[:, 1:]]
    chunk = max(1, _CHUNK_ELEMENTS // model.get_output_embeddings().weight.shape[0])
    logprobs, entropies = [], []
    for begin in range(0, len(ids_N), chunk):
        part = states_ND[begin : begin + chunk], ids_N[begin : begin + chunk]
        if len(ids_N) > chunk and torch.is_grad_enabled():
            result = checkpoint(_head, model, *part, sampling, entropy, use_reentrant=False)
        else:
            result = _head(model, *part, sampling, entropy)
        logprobs.append(result[0])
        entropies.append(result[1])
    if not logprobs:
        empty = states_ND.new_zeros(0, dtype=torch.float32)
        return TokenScores(empty, empty if entropy else None, states_ND)
    return TokenScores(torch.cat(logprobs), torch.cat(entropies) if entropy else None, states_ND)


def _head(
    model: PreTrainedModel, states_ND: torch.Tensor, ids_N: torch.Tensor, sampling: SamplingConfig, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    logits_NV = transform_logits(model.get_output_embeddings()(states_ND), sampling, ids_N)
    logprobs_NV = logits_NV.log_softmax(-1)
    chosen_N = logprobs_NV.gather(-1, ids_N[:, None]).squeeze(-1)
    if not entropy:
        return chosen_N, None
    probs_NV = logprobs_NV.exp()
    finite_NV = logprobs_NV.masked_fill(probs_NV == 0, 0.0)  # before the product: 0 · −inf has a gradient of NaN
    return chosen_N, -(probs_NV * finite_NV).sum(-1)


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not its output embedding applied to the trunk's last state (soft-capped or scaled
    logits): the chunked head above would train a different model than the one that is sampled from."""
    ids = torch.arange(4, device=model.device)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    ours = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(logits.float(), ours.float(), atol=1e-3, rtol=1e-3):
        raise UsageError(
            f"model type {model.config.model_type!r} changes its logits after the output head (a soft cap, a scale), "
            "which the learner does not support"
        )
