"""What a run trains, whole in one process or in shards: written to files and read from them by any number of processes.

A checkpoint holds the weights twice where they learn in more digits than they compute in: as others load them, and as
the optimizer knows them. All numbers go by the names of weights (`policy.model.layers.0…`), not by who held them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from retool.errors import RetoolError, UsageError, first_line
from retool.learner.adapters import has_adapters, merged_state_dict
from retool.learner.critic import Critic
from retool.learner.distributed import ALONE, Processes
from retool.learner.optimizer import Optimizer

_POLICY, _CRITIC = "policy.", "critic."
_WEIGHTS, _MOMENTS = "weights.", "moments."


class Trained:
    """A policy under training with its critic, if any, and their optimizer; all sharded if there are `processes`.

    `dtype` is what the policy computes in and is written as.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: Optimizer,
        dtype: torch.dtype,
        critic: Critic | None = None,
        processes: Processes = ALONE,
    ):
        self.model, self.optimizer, self.dtype, self.processes = model, optimizer, dtype, processes
        named = _named(_POLICY, model) | (_named(_CRITIC, critic) if critic else {})
        self._parameters = {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The policy's weights that are trained, by name, each whole and in the data type that it computes in, one at a
        time. To be run through by all."""
        for name, parameter in self._parameters.items():
            if name.startswith(_POLICY):
                yield name.removeprefix(_POLICY), _whole(parameter.to(self.dtype))

    @torch.no_grad()
    def copy_to(self, model: PreTrainedModel) -> None:
        """Give the weights to a model that `Processes.replicate` made of the policy. Called by all."""
        if model is self.model:
            return
        copied = dict(model.named_parameters())
        for name, weight in self.weights():
            copied[name].copy_(weight)

    @torch.no_grad()
    def save_model(self, folder: Path) -> None:
        """Write the whole policy, adapters merged, as a Hugging Face folder. Called by all; one process writes, and
        holds all weights in memory. No process holds more than one of them on its device."""
        model, processes = self.model, self.processes
        if processes.mesh is None:
            model.save_pretrained(folder, state_dict=merged_state_dict(model) if has_adapters(model) else None)
            return
        rounded = {
            name: value.to(self.dtype) if value.is_floating_point() and isinstance(value, DTensor) else value
            for name, value in model.state_dict().items()
        }
        state = {}
        for name, value in merged_state_dict(model, rounded).items():
            whole = _whole(value)
            if processes.is_writer and name not in model.all_tied_weights_keys:  # they are no longer one tensor
                state[name] = whole.cpu()

        def write() -> None:
            model.save_pretrained(folder, state_dict=state)
            model.config.dtype = self.dtype  # which save_pretrained takes from the shards
            model.config.save_pretrained(folder)

        processes.once(write)

    def save_rest(self, folder: Path) -> None:
        """Write what a resume needs beside the model's files: what they do not hold of the weights, and the optimizer's
        moments. Called by all, each of which writes its shards into the folder, which all see. Raises RetoolError if
        they cannot be written."""
        state = self._weights() | {
            f"{_MOMENTS}{name}.{kind}": moment
            for name, parameter in self._parameters.items()
            for kind, moment in self.optimizer.moments(parameter).items()
        }
        writer = checkpoint.FileSystemWriter(folder, sync_files=False)  # as all that is written here
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that one process is one process
                checkpoint.save(state, storage_writer=writer, no_dist=self.processes.mesh is None)
        except checkpoint.CheckpointException as error:
            raise _cause(error, f"shards could not be written to {folder}") from error

    def load_rest(self, folder: Path) -> None:
        """Go on from what `save_rest` wrote, in however many processes, under the settings of the config in force.
        Called by all. Raises UsageError if it was written of another model or by other settings."""
        reader = checkpoint.FileSystemReader(folder)
        state = self._weights()
        try:
            saved = {name: each.size for name, each in reader.read_metadata().state_dict_metadata.items()}
        except FileNotFoundError as error:
            raise UsageError(f"{folder} holds no shards; go on from another checkpoint") from error
        for name, size in saved.items():
            owner, _, kind = name.removeprefix(_MOMENTS).rpartition(".")
            if name.startswith(_MOMENTS) and owner in self._parameters:
                parameter = self._parameters[owner]
                like = self.optimizer.learned(parameter).detach()
                state[name] = self.optimizer.moments(parameter)[kind] = torch.zeros_like(like) if size else _zero()
        shapes = {name: tensor.shape for name, tensor in state.items()}
        if saved != shapes:
            name = min(name for name in saved.keys() | shapes.keys() if saved.get(name) != shapes.get(name))
            there, here = (list(each[name]) if name in each else "missing" for each in (saved, shapes))
            raise UsageError(
                f"{folder} was written by a run of another model or of other settings ({name} is {there} there, and "
                f"{here} here); go on with the settings that it was made with"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                checkpoint.load(state, storage_reader=reader, no_dist=self.processes.mesh is None)
        except checkpoint.CheckpointException as error:
            raise _cause(error, f"shards could not be read from {folder}") from error
        self.optimizer.round()

    def _weights(self) -> dict[str, torch.Tensor]:
        """Those that the model's files do not hold, or not to the last digit: adapters, a critic, and masters."""
        in_files = self.dtype is torch.float32 and not has_adapters(self.model)
        return {
            _WEIGHTS + name: self.optimizer.learned(parameter).detach()
            for name, parameter in self._parameters.items()
            if not (in_files and name.startswith(_POLICY))
        }


def _named(owner: str, module: nn.Module) -> dict[str, nn.Parameter]:
    return {owner + name: parameter for name, parameter in module.named_parameters()}


def _whole(value: torch.Tensor) -> torch.Tensor:
    """Gathered from the processes that hold its shards. Called by all."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _zero() -> torch.Tensor:
    return torch.zeros(())  # a count of steps, which optimizers keep on the CPU


def _cause(error: checkpoint.CheckpointException, what: str) -> BaseException:
    """What went wrong in the first of the processes where something did; Ctrl-C stays what it is."""
    cause, _ = next(iter(error.failures.values()))
    if isinstance(cause, KeyboardInterrupt):
        return cause
    return RetoolError(f"{what}: {first_line(cause)}")
