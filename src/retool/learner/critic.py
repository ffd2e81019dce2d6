"""The critic: an estimate of the final reward before each of the model's tokens."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from retool.learner.logprobs import target_states
from retool.learner.packing import Batch


class Critic(nn.Module):
    """A head on the policy's trunk, or on one of its own that starts as a copy of it. Says 0 everywhere at first."""

    def __init__(self, policy: PreTrainedModel, own_trunk: bool = False):
        super().__init__()
        size = policy.config.get_text_config().hidden_size
        self.trunk = copy.deepcopy(policy.base_model).float().requires_grad_(True) if own_trunk else None
        self.hidden = nn.Linear(size, size)
        self.out = nn.Linear(size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.to(policy.device)

    def forward(self, batch: Batch, states_ND: torch.Tensor) -> torch.Tensor:
        """Values [N] before the target tokens of a batch. `states_ND` are those of the policy's trunk."""
        if self.trunk is not None:
            states_ND = target_states(self.trunk, batch)
        return self.out(torch.tanh(self.hidden(states_ND.float()))).squeeze(-1).clone()  # FSDP2 warns of a view

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.hidden.parameters(), *self.out.parameters()]

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [] if self.trunk is None else list(self.trunk.parameters())
