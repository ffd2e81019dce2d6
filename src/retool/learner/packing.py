"""Sequences laid end to end: a micro-batch is one row of whole sequences, without padding.

Positions start at 0 in each of them, and attention keeps them apart (`attention`), so what a sequence is computed to be
does not depend on its neighbours.
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
    """B sequences of T tokens in all, in the order of `indices`.

    `targets_T` is True for a token that is to be predicted, which the hidden state before it does; a sequence's first
    token never is. The N targets in this order are what `score` gives numbers for, `model_lengths_B` (int64) of them in
    each sequence: the flat layout of `retool.objectives`.
    """

    indices: list[int]
    ids_1T: torch.Tensor
    positions_1T: torch.Tensor
    lengths_B: torch.Tensor
    targets_T: torch.Tensor
    model_lengths_B: torch.Tensor


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups of at most `budget` tokens, each index once; a longer sequence is a group by itself.

    First fit, longest first (equal ones by index): at most 11/9 of the fewest possible groups, plus one. So a group's
    indices are by descending length, and the first groups are the fullest.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((g for g, left in enumerate(room) if lengths[index] <= left), len(groups))
        if place == len(groups):
            groups.append([])
            room.append(budget)
        groups[place].append(index)
        room[place] -= lengths[index]
    return groups


def make_batch(examples: Sequence[Example], indices: Sequence[int], device: torch.device) -> Batch:
    chosen = [examples[i] for i in indices]
    lengths = torch.tensor([len(example) for example in chosen])
    positions = torch.cat([torch.arange(len(example)) for example in chosen])
    targets = torch.tensor([wanted for example in chosen for wanted in example.mask]) & (positions > 0)
    model_lengths = torch.stack([part.sum() for part in targets.split(lengths.tolist())])
    ids = torch.tensor([token for example in chosen for token in example.ids])
    tensors = (ids[None], positions[None], lengths, targets, model_lengths)
    return Batch(list(indices), *(tensor.to(device) for tensor in tensors))
