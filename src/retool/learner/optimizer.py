"""Torch's optimizers with a schedule that is a function of the step alone, so that a resume needs no more than that."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from retool.config.schema import OptimizerConfig


class Optimizer:
    """Updates the trainable parameters of `model`, and of `critic` at a peak learning rate of its own.

    `total_steps` is where a decaying schedule reaches 0. `steps_taken` is where in it the next step stands; to be set
    where fewer steps are taken than planned.

    `adamw` treats all parameters alike. `muon` (Jordan et al. 2024, as in torch.optim.Muon) orthogonalizes the update
    of the weight matrices inside the trunk and leaves embeddings, heads, norms and biases to AdamW; its updates are
    scaled to the size of AdamW's, so that both take the same learning rate.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: OptimizerConfig,
        total_steps: int,
        critic: nn.Module | None = None,
        critic_learning_rate: float = 0.0,
    ):
        self.config = config
        self.total_steps = total_steps
        self.steps_taken = 0
        matrices = _trunk_matrices(model) if config.optimizer == "muon" else []
        inside = {id(matrix) for matrix in matrices}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
        rate, decay = config.learning_rate, config.weight_decay
        groups = [{"params": others, "peak": rate}]
        if critic is not None:
            groups.append({"params": list(critic.parameters()), "peak": critic_learning_rate})
        self.parameters = [*matrices, *(parameter for group in groups for parameter in group["params"])]
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=rate, betas=config.betas, weight_decay=decay)
        }
        if matrices:
            self._optimizers["muon"] = torch.optim.Muon(
                [{"params": matrices, "peak": rate}], lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )

    @property
    def learning_rate(self) -> float:
        """The policy's, of the next step."""
        return self.config.learning_rate * self._schedule()

    def _schedule(self) -> float:
        """The share of the peak learning rates that the next step takes."""
        config, step = self.config, self.steps_taken
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        done = (step - config.warmup_steps) / max(1, self.total_steps - config.warmup_steps)
        scale = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
        return max(0.0, scale[config.decay])

    def step(self) -> float:
        """Clip, update, clear the gradients. Returns the norm before clipping; a norm that is not finite changes
        nothing but the step count."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for optimizer in self._optimizers.values():
            if torch.isfinite(norm):
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * self._schedule()
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps_taken += 1
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        states = {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}
        return {"optimizers": states, "steps_taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the moments and the step count of `state`; its learning rates and other settings give way to those
        of the config in force."""
        for name, optimizer in self._optimizers.items():
            in_force = [dict(group) for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, settings in zip(optimizer.param_groups, in_force, strict=True):
                group.update(settings)
        self.steps_taken = state["steps_taken"]


def _trunk_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights of the linear layers inside the trunk: neither embedding nor output head."""
    head = model.get_output_embeddings()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    return [layer.weight for layer in layers if layer.weight.requires_grad]
