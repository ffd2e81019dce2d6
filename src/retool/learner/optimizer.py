"""Torch's optimizers with a schedule that is a function of the step alone, so that a resume needs no more than that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from retool.config.schema import OptimizerConfig


class Optimizer:
    """Updates the trainable parameters of `model`, and `further` ones, each list at a peak learning rate of its own.

    `total_steps` is where a decaying schedule reaches 0. `steps_taken` is where in it the next step stands; to be set
    where fewer steps are taken than planned.

    `adamw` treats all parameters alike. `muon` (Jordan et al. 2024, as in torch.optim.Muon) orthogonalizes the update
    of the weight matrices inside the trunk and leaves embeddings, heads, norms and biases to AdamW; its updates are
    scaled to the size of AdamW's, so that both take the same learning rate.

    Weights of less than 32 bits learn through masters in fp32, which the optimizer holds: gradients of micro-batches
    are summed up, clipped and applied in fp32, and the weights are the masters rounded. An update that is too small for
    a weight's own digits is kept and adds up. Masters start as the weights are when the optimizer is made.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: OptimizerConfig,
        total_steps: int,
        further: Sequence[tuple[Sequence[nn.Parameter], float]] = (),
    ):
        self.config = config
        self.total_steps = total_steps
        self.steps_taken = 0
        matrices = _trunk_matrices(model) if config.optimizer == "muon" else []
        inside = {id(matrix) for matrix in matrices}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
        rate, decay = config.learning_rate, config.weight_decay
        groups = [{"params": others, "peak": rate}]
        groups += [{"params": list(parameters), "peak": peak} for parameters, peak in further if parameters]
        self.parameters = [*matrices, *(parameter for group in groups for parameter in group["params"])]
        self._masters = {p: _make_master(p) for p in self.parameters if p.dtype is not torch.float32}
        for group in groups:
            group["params"] = self._updated(group["params"])
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=rate, betas=config.betas, weight_decay=decay, fused=True)
        }
        if matrices:
            groups = [{"params": self._updated(matrices), "peak": rate}]
            self._optimizers["muon"] = torch.optim.Muon(
                groups, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )
        self._moments = {
            parameter: optimizer.state
            for optimizer in self._optimizers.values()
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    def _updated(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """What steps are taken on: the masters of those that have one."""
        return [self._masters.get(parameter, parameter) for parameter in parameters]

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
        norm = self._clip()
        if torch.isfinite(norm):
            for parameter, master in self._masters.items():
                master.grad = parameter.grad
            self._lay_out_alike()
            for optimizer in self._optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * self._schedule()
                optimizer.step()
            self.round()
        for parameter in [*self.parameters, *self._masters.values()]:
            parameter.grad = None
        self.steps_taken += 1
        return float(norm)

    def _clip(self) -> torch.Tensor:
        """Scale all gradients down together; the norm that they had, over all processes."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, norm)
        return norm

    def learned(self, parameter: nn.Parameter) -> nn.Parameter:
        """What steps are taken on: a trained parameter, or its master. Whoever writes to masters calls `round` then."""
        return self._masters.get(parameter, parameter)

    def moments(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        """What the steps so far have left of a trained parameter's gradients; what is put in there, the next step goes
        on from."""
        learned = self.learned(parameter)
        return self._moments[learned][learned]

    @torch.no_grad()
    def round(self) -> None:
        """Make weights that have masters what these are, rounded."""
        for parameter, master in self._masters.items():
            parameter.copy_(master)

    def _lay_out_alike(self) -> None:
        """Gradients and moments as the weights lie, which may have been laid out anew since those were made or loaded:
        the fused kernel takes memory as it comes."""
        for parameter, states in self._moments.items():
            if parameter.grad is not None:
                parameter.grad = _laid_out_as(parameter, parameter.grad)
            for name, moment in states.get(parameter, {}).items():
                if moment.shape == parameter.shape:
                    states[parameter][name] = _laid_out_as(parameter, moment)


def _laid_out_as(parameter: nn.Parameter, values: torch.Tensor) -> torch.Tensor:
    return values if values.stride() == parameter.stride() else torch.empty_like(parameter).copy_(values)


def _make_master(parameter: nn.Parameter) -> nn.Parameter:
    """A copy in fp32. From now on autograd sums the parameter's gradients up in fp32, too."""
    parameter.grad_dtype = torch.float32
    return nn.Parameter(parameter.detach().float())


def _trunk_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights of the linear layers inside the trunk: neither embedding nor output head."""
    head = model.get_output_embeddings()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    return [layer.weight for layer in layers if layer.weight.requires_grad]
