"""Several processes that train one model (torchrun, FSDP2): each holds a shard of it and learns from a part of a batch.

A loss is a sum over tokens whose weights were found over the whole mini-batch. So each process takes some of its
micro-batches, and gradients are added up over processes, not averaged: the update is the one that a single process
makes. As each pass gathers weights from all processes, all of them make the same number of passes.

Processes find each other by making the same calls in the same order: what is said here to be called by all must be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from retool.errors import RetoolError, UsageError
from retool.learner.adapters import merged_state_dict
from retool.learner.optimizer import Optimizer
from retool.learner.packing import pack

_LONGEST_WAIT = timedelta(hours=12)  # one process may sample much longer than another; torchrun ends all if one dies
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TRAINED_ONLY = StateDictOptions(ignore_frozen_params=True, strict=False)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """Those that train together, and which of them this is. Without a `mesh` it is alone, and nothing is sharded."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_writer(self) -> bool:
        """Whether this one writes what is written once."""
        return self.rank == 0

    def part(self, items: Sequence[T]) -> list[T]:
        """Those of the items, known to all, that are this process's to work on."""
        return list(items[self.rank :: self.size])

    def gather(self, own: T) -> list[T]:
        """What each process has, by rank. Called by all."""
        if self.size == 1:
            return [own]
        found: list[T] = [own] * self.size
        distributed.all_gather_object(found, own)
        return found

    def gather_parts(self, own: Sequence[T]) -> list[T]:
        """What processes made of each item of their `part`, in the order of all items. Called by all."""
        absent = object()
        rounds = zip_longest(*self.gather(own), fillvalue=absent)
        return [item for each in rounds for item in each if item is not absent]

    def add_up(self, own: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes, each of which has some of the names. Called by all."""
        sums: dict[str, float] = {}
        for found in self.gather(dict(own)):
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            distributed.barrier()

    def passes(self, lengths: Sequence[int], budget: int) -> list[tuple[list[int], float]]:
        """The forward and backward passes of this process over sequences that all know: indices of each, and what its
        loss is to be multiplied by. That is 1, or 0 for a pass that only keeps step with the others.

        Alone, a process makes those of `pack`. Together they make as few, rounded up, and share the tokens evenly.
        """
        if self.size == 1:
            return [(group, 1.0) for group in pack(lengths, budget)]
        groups = _spread(lengths, budget, self.size)
        shortest = min(range(len(lengths)), key=lengths.__getitem__, default=0)
        return [(group, 1.0) if group else ([shortest], 0.0) for group in self.part(groups)]

    def shard(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        """Leave this process a shard of the weights, which are in fp32 and equal everywhere. Each pass gathers them,
        layer by layer, in `dtype`; gradients are added up in fp32. To be done before there is an optimizer, and after
        anything is copied from the module. Called by all."""
        if self.mesh is None:
            return
        for part in [*_layers(module), module]:
            fully_shard(part, mesh=self.mesh, mp_policy=MixedPrecisionPolicy(dtype, torch.float32))
            part.set_gradient_divide_factor(1.0)  # their sum, not their mean
            part.set_force_sum_reduction_for_comms(True)  # by a plain sum, which every backend knows


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, over `device`s of this type; this one alone if it did not."""
    if not all(name in os.environ for name in _TORCHRUN):
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        size = distributed.get_world_size()
        yield Processes(distributed.get_rank(), size, init_device_mesh(device.type, (size,)))
    finally:
        distributed.destroy_process_group()


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Within this context each process holds the whole model, in the data type of its passes, and can call it as often
    as it likes, without gradients, whatever the others do. Entered by all; a model that is not sharded stays as it is.
    """
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(module is not model, recurse=False)  # the root's are needed at once again
            module.reshard()


def save_model(model: PreTrainedModel, folder: Path, dtype: torch.dtype, processes: Processes) -> None:
    """Write the whole model, adapters merged, as a Hugging Face folder with weights of `dtype`. Called by all; one
    process writes, and holds all weights in memory. No process holds more than one of them on its device."""
    tied = model.all_tied_weights_keys if processes.mesh else {}  # gathered, they would no longer be one tensor
    state = {}
    for name, value in merged_state_dict(model).items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if processes.is_writer and name not in tied:
            whole = whole.to(dtype) if whole.is_floating_point() else whole
            state[name] = whole.cpu() if processes.mesh else whole
    if processes.is_writer:
        model.save_pretrained(folder, state_dict=state)
        model.config.dtype = dtype  # which save_pretrained takes from the shards
        model.config.save_pretrained(folder)
    processes.wait()


def save_shards(folder: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
    """Write what is trained of the modules, and the optimizer's state, for `load_shards` in any number of processes.
    Called by all, each of which writes its shards into the folder, which all see. Raises RetoolError if it cannot."""
    try:
        checkpoint.save(_state(nn.ModuleDict(modules), optimizer), checkpoint_id=folder)
    except checkpoint.CheckpointException as error:
        raise RetoolError(f"shards could not be written to {folder}: {_reason(error)}") from error


def load_shards(folder: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
    """Go on from what `save_shards` wrote, under the settings of the config in force. Called by all. Raises UsageError
    if the folder holds another model, or none."""
    model = nn.ModuleDict(modules)
    state = _state(model, optimizer)
    try:
        checkpoint.load(state, checkpoint_id=folder)
    except checkpoint.CheckpointException as error:
        raise UsageError(
            f"{folder} does not hold the model and the optimizer of this config ({_reason(error)}); go on with the "
            "settings that it was made with"
        ) from error
    set_model_state_dict(model, state["model"], options=_TRAINED_ONLY)
    optimizer.load_sharded_state_dict(model, state["optimizer"])


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, object]:
    return {
        "model": get_model_state_dict(model, options=_TRAINED_ONLY),
        "optimizer": optimizer.sharded_state_dict(model),
    }


def _reason(error: checkpoint.CheckpointException) -> str:
    """What went wrong in the first of the processes where something did."""
    first, _ = next(iter(error.failures.values()))
    return (str(first).strip() or type(first).__name__).splitlines()[0]


def _layers(module: nn.Module) -> list[nn.Module]:
    """The decoder layers, by the names of their classes that transformers says are not to be split."""
    names = {name for each in module.modules() for name in getattr(each, "_no_split_modules", None) or ()}
    return [each for each in module.modules() if type(each).__name__ in names]


def _spread(lengths: Sequence[int], budget: int, size: int) -> list[list[int]]:
    """Indices in as few groups as `pack` makes, rounded up to a multiple of `size`, by falling numbers of tokens.

    The longest first, each to the group that has the fewest tokens; where that breaks the budget, as packed. A group
    may be empty.
    """
    packed = pack(lengths, budget)
    groups: list[list[int]] = [[] for _ in range(ceil(len(packed) / size) * size)]
    tokens = [0] * len(groups)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = tokens.index(min(tokens))
        groups[place].append(index)
        tokens[place] += lengths[index]
    if any(count > budget and len(group) > 1 for count, group in zip(tokens, groups, strict=True)):
        groups = packed + [[] for _ in range(len(groups) - len(packed))]
    return sorted(groups, key=lambda group: -sum(lengths[i] for i in group))
