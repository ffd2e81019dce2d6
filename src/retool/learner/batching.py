"""Sequences and their batches.

A batch is padded on the right. Attention is causal, so no token of a sequence ever looks at the padding behind it, and
no mask is needed; what is computed there is thrown away. Sorting by length keeps the padding small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retool.types import Trajectory


@dataclass(frozen=True, slots=True)
class Example:
    """Ids of prompt and response; `mask[i]` says whether `ids[i]` was written by the model and is to be learned."""

    ids: list[int]
    mask: list[bool]

    @classmethod
    def from_trajectory(cls, trajectory: Trajectory) -> Example:
        prompt = trajectory.prompt_ids or []
        return cls(prompt + trajectory.response_ids, [False] * len(prompt) + trajectory.model_mask)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """`indices`: which sequences, in the order of the rows. `targets_BT` is True where a token is to be predicted: the
    hidden state at t − 1 predicts the token at t."""

    indices: list[int]
    ids_BT: torch.Tensor
    targets_BT: torch.Tensor


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups of similar length, each at most `budget` tokens with its padding (one at least)."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (len(groups[-1]) + 1) * longest <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def make_batch(sequences: Sequence[Example], indices: list[int], pad_id: int, device: torch.device) -> Batch:
    longest = max(len(sequences[i]) for i in indices)
    ids = torch.full((len(indices), longest), pad_id, dtype=torch.long)
    targets = torch.zeros((len(indices), longest), dtype=torch.bool)
    for row, index in enumerate(indices):
        sequence = sequences[index]
        ids[row, : len(sequence)] = torch.tensor(sequence.ids)
        targets[row, : len(sequence)] = torch.tensor(sequence.mask)
    targets[:, 0] = False  # nothing comes before the first token
    return Batch(indices, ids.to(device), targets.to(device))
