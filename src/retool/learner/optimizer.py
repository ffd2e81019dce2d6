"""Torch's optimizers with a schedule that is a function of the step alone, so that a resume needs no more than that."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from retool.config.schema import OptimizerConfig


class Optimizer:
    """Updates all trainable parameters of `modules`; `total_steps` is where a decaying schedule reaches 0.

    `adamw` treats all parameters alike. `muon` (Jordan et al. 2024, as in torch.optim.Muon) orthogonalizes the update
    of the weight matrices inside the trunk and leaves embeddings, heads, norms and biases to AdamW; its updates are
    scaled to the size of AdamW's, so that both take the same learning rate.
    """

    def __init__(self, modules: list[nn.Module], config: OptimizerConfig, total_steps: int):
        self.config = config
        self.total_steps = total_steps
        self.steps_taken = 0
        matrices, others = _split(modules) if config.optimizer == "muon" else ([], _trainable(modules))
        self.parameters = matrices + others
        rate, decay = config.learning_rate, config.weight_decay
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(others, lr=rate, betas=config.betas, weight_decay=decay)
        }
        if matrices:
            self._optimizers["muon"] = torch.optim.Muon(
                matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        config, step = self.config, self.steps_taken
        if step < config.warmup_steps:
            return config.learning_rate * (step + 1) / config.warmup_steps
        done = (step - config.warmup_steps) / max(1, self.total_steps - config.warmup_steps)
        scale = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
        return config.learning_rate * max(0.0, scale[config.decay])

    def step(self) -> float:
        """Clip, update, clear the gradients. Returns the norm before clipping; a norm that is not finite changes
        nothing but the step count."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for optimizer in self._optimizers.values():
            if torch.isfinite(norm):
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps_taken += 1
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        states = {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}
        return {"optimizers": states, "steps_taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.steps_taken = state["steps_taken"]


def _trainable(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def _split(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of linear layers that lead from hidden states to hidden states, and all other parameters."""
    heads = {id(module.get_output_embeddings().weight) for module in modules if hasattr(module, "get_output_embeddings")}
    matrices = {
        id(layer.weight)
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and layer.out_features > 1 and id(layer.weight) not in heads
    }
    parameters = _trainable(modules)
    return [p for p in parameters if id(p) in matrices], [p for p in parameters if id(p) not in matrices]
