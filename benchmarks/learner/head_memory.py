"""Peak memory of head and loss, in a process of its own: python benchmarks/learner/head_memory.py plain|retool TOKENS

A trunk of hardly any size under a vocabulary of 151,936: log-probabilities, entropies, and the backward pass of both.
Prints bytes beyond what was resident when the inputs were there.
"""

from __future__ import annotations

import resource
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from retool.learner.logprobs import score
from retool.learner.packing import Batch, Example, make_batch

VOCABULARY = 151_936
_LENGTH = 256  # of a sequence


def main() -> None:
    way, tokens = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **sizes))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ids = torch.randint(VOCABULARY, (tokens // _LENGTH, _LENGTH))
    batch = make_batch([Example(row, [True] * _LENGTH) for row in ids.tolist()], range(len(ids)), ids.device)
    before = peak()
    logprobs, entropies = plain(model, ids) if way == "plain" else ours(model, batch)
    (logprobs.sum() + 0.01 * entropies.sum()).backward()
    print(peak() - before)


def plain(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    return logprobs[:, :-1].gather(-1, ids[:, 1:, None]), -(logprobs.exp() * logprobs)[:, :-1].sum(-1)


def ours(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    scores = score(model, batch, entropy=True)
    return scores.logprobs_N, scores.entropies_N


def peak() -> int:
    kilobytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes


if __name__ == "__main__":
    main()
