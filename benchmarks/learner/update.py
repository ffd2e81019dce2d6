"""One RL update of a policy: GRPO's loss on sequences of fixed lengths, backward, clipping, AdamW.

Ids are drawn once from the vocabulary, advantages are +1 and −1 in turn; neither side computes old log-probabilities,
so the ratio is 1 and the loss says nothing. That both sides compute the same is seen in the gradient's norm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from retool.kernels.products import take_fast_products
from retool.learner.logprobs import score
from retool.learner.packing import Example, make_batch, pack
from retool.objectives.aggregation import sequence_mean
from retool.objectives.losses import ppo_clip

LENGTHS = Path(__file__).with_name("lengths.json")
LEARNING_RATE = 1e-6


@dataclass(frozen=True, slots=True)
class Sequences:
    """Prompts and responses as ids; all tokens of a response are the model's."""

    prompts: list[list[int]]
    responses: list[list[int]]
    advantages: list[float]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.prompts)) + sum(map(len, self.responses))


def draw_sequences(vocabulary: int) -> Sequences:
    generator = torch.Generator().manual_seed(0)
    parts = [
        [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in pair]
        for pair in json.loads(LENGTHS.read_text(encoding="utf-8"))
    ]
    prompts, responses = zip(*parts, strict=True)
    return Sequences(list(prompts), list(responses), [1.0 - 2.0 * (i % 2) for i in range(len(parts))])


class Learner:
    """ReTool's update, of the learner's parts."""

    def __init__(self, folder: Path, budget: int):
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
        take_fast_products(self.model)
        self._budget = budget
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    @property
    def matrix_parameters(self) -> int:
        """Parameters that multiply each token: all but the embedding's look-up, a tied head counted once."""
        model = self.model
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        return sum(p.numel() for p in model.parameters()) - (0 if tied else model.get_input_embeddings().weight.numel())

    def update(self, sequences: Sequences) -> tuple[float, float]:
        """Seconds, and the gradient's norm."""
        began = time.perf_counter()
        parts = zip(sequences.prompts, sequences.responses, strict=True)
        examples = [Example(a + b, [False] * len(a) + [True] * len(b)) for a, b in parts]
        lengths = [len(response) for response in sequences.responses]
        weights = sequence_mean(torch.tensor(lengths)).split(lengths)
        for indices in pack([len(example) for example in examples], self._budget):
            self._backward(examples, indices, weights, sequences.advantages)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began, float(norm)

    def _backward(
        self,
        examples: Sequence[Example],
        indices: Sequence[int],
        weights: Sequence[torch.Tensor],
        advantages: Sequence[float],
    ) -> None:
        batch = make_batch(examples, indices, self.model.device)
        scores = score(self.model, batch, entropy=True)  # as a metric, as TRL does
        advantages_N = torch.tensor([advantages[i] for i in indices]).repeat_interleave(batch.model_lengths_B)
        loss_N, _ = ppo_clip(scores.logprobs_N, scores.logprobs_N.detach(), advantages_N, batch.model_lengths_B)
        (torch.cat([weights[i] for i in indices]) * loss_N).sum().backward()
