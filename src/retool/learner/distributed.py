"""Several processes that train one model (torchrun, FSDP2): each holds a shard of it and learns from a part of a batch.

A loss is a sum over tokens whose weights were found over the whole mini-batch. So each process takes some of its
micro-batches, and gradients are added up over processes, not averaged: the update is the one that a single process
makes. As each pass gathers weights from all processes, all of them make the same number of passes.

Processes find each other by making the same calls in the same order: what is said here to be called by all must be.
What they decide by must be the same everywhere: what all have gathered, or what one has found out for all (`once`).
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from math import ceil
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from retool.errors import RetoolError, first_line
from retool.learner.packing import pack

_LONGEST_WAIT = timedelta(hours=12)  # one process may sample much longer than another; torchrun ends all if one dies
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)


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
        """What each process has, by rank. Called by all. Raises RetoolError if one of them has ended."""
        if self.size == 1:
            return [own]
        found: list[T] = [own] * self.size
        try:
            distributed.all_gather_object(found, own)
        except RuntimeError as error:
            raise RetoolError("another process of this run has ended; what it said tells why") from error
        return found

    def settle(self, own: T | BaseException) -> list[T]:
        """What each process has come to, by rank. An error, or a cancellation, of one is everyone's: where it came up
        it is raised itself, elsewhere as RetoolError, or as a cancellation. Called by all."""
        failed = isinstance(own, BaseException)
        found = self.gather(_Failure.of(own) if failed and self.size > 1 else own)
        failures = {rank: each for rank, each in enumerate(found) if isinstance(each, _Failure)}
        errors = {rank: each for rank, each in failures.items() if not each.is_cancellation}
        if failed and (self.size == 1 or self.rank in errors or not errors):
            raise own
        if errors:
            rank, error = next(iter(errors.items()))
            raise RetoolError(f"process {rank} of {self.size} has failed: {error.message}")
        if failures:
            raise asyncio.CancelledError
        return found

    def once(self, do: Callable[[], T]) -> T:
        """Have one process do something for all: what it returns, or raises, is everyone's. Called by all."""
        if self.size == 1:
            return do()
        outcome: T | Exception | None = None
        if self.is_writer:
            try:
                outcome = do()
            except Exception as error:
                outcome = error
        return self.settle(outcome)[0]

    def add_up(self, own: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes, each of which has some of the names. Called by all."""
        sums: dict[str, float] = {}
        for found in self.gather(dict(own)):
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

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

    def replicate(self, model: Module) -> Module:
        """A copy for this process alone, to sample from: whole, on the device, without gradients. A process that is
        alone samples from the model itself. To be made before there are shards."""
        if self.mesh is None:
            return model
        return copy.deepcopy(model).requires_grad_(False).to(self.mesh.device_type)

    def shard(self, module: nn.Module) -> None:
        """Leave this process a shard of the weights, which are equal everywhere, in fp32 and on the device. Each pass
        gathers them, layer by layer, in the data type that they came in; gradients are added up in fp32. To be done
        before there is an optimizer, and after anything is copied from the module. Called by all."""
        if self.mesh is None:
            return
        dtype = next(module.parameters()).dtype
        for part in [*_layers(module), module]:
            part.float()  # one by one, so that the whole is never held in fp32
            fully_shard(part, mesh=self.mesh, mp_policy=MixedPrecisionPolicy(dtype, torch.float32))
            part.set_gradient_divide_factor(1.0)  # their sum, not their mean
            part.set_force_sum_reduction_for_comms(True)  # by a plain sum, which every backend knows


ALONE = Processes()


def merge_parts(parts: Sequence[Sequence[T]]) -> list[T]:
    """What processes made of each item of their `part`, by rank, in the order of all items."""
    absent = object()
    return [item for each in zip_longest(*parts, fillvalue=absent) for item in each if item is not absent]


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


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a process tells the others of an error, which may not be one that can be sent."""

    message: str
    is_cancellation: bool

    @classmethod
    def of(cls, error: BaseException) -> _Failure:
        message = first_line(error)
        return cls(message, isinstance(error, asyncio.CancelledError))


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
