"""AdamW with a schedule that is a function of the step alone, so that a resumed run needs no more than the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from retool.config.schema import OptimizerConfig


class Optimizer:
    """AdamW over `parameters`; `total_steps` is where a decaying schedule reaches 0."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig, total_steps: int):
        self.config = config
        self.parameters = list(parameters)
        self.total_steps = total_steps
        self.steps_taken = 0
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
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
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if torch.isfinite(norm):
            for group in self.adamw.param_groups:
                group["lr"] = self.learning_rate
            self.adamw.step()
        self.steps_taken += 1
        self.adamw.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "steps_taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adamw.load_state_dict(state["adamw"])
        self.steps_taken = state["steps_taken"]
