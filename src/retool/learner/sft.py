"""Supervised fine-tuning: one step of cross-entropy on the model's tokens; interpreter tokens are masked."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from retool.learner.distributed import ALONE, Processes
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example, make_batch


def sft_step(
    model: PreTrainedModel,
    optimizer: Optimizer,
    examples: Sequence[Example],
    token_budget: int,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """One optimizer step on `examples`. The loss is the mean over the batch's model tokens, however it is split, and
    `token_accuracy` the share of them that the model, given all before, takes for the most probable. Called by all
    processes, with the same examples."""
    model.train()
    tokens = max(1, sum(sum(example.mask) for example in examples))
    learning_rate = optimizer.learning_rate
    sums = {"loss": 0.0, "token_accuracy": 0.0}
    for indices, weight in processes.passes([len(example) for example in examples], token_budget):
        scores = score(model, make_batch(examples, indices, model.device))
        loss = -weight * scores.logprobs_N.sum() / tokens
        loss.backward()
        sums["loss"] += float(loss.detach())
        sums["token_accuracy"] += weight * float(scores.is_top_N.sum()) / tokens
    sums = processes.add_up(sums)
    return {**sums, "grad_norm": optimizer.step(), "learning_rate": learning_rate, "model_tokens": tokens}
