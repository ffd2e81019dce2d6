"""The processes of a training run: one, or those that torchrun has started. One of them prints and writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retool.config.schema import ModelConfig
from retool.errors import UsageError
from retool.learner.distributed import Processes, join_processes
from retool.learner.policy import pick_device
from retool.stages.progress import console


@contextmanager
def training_processes(config: ModelConfig) -> Iterator[Processes]:
    """All that train together; those that do not write are silent meanwhile, but for errors."""
    device = pick_device(config)
    with join_processes(device) as processes:
        if processes.size > 1 and device.index is not None:
            raise UsageError(
                f"model.device={config.device} is one device, and this run has {processes.size} processes; with "
                f"model.device={device.type} each takes its own"
            )
        was_quiet, console.quiet = console.quiet, not processes.is_writer
        try:
            yield processes
        finally:
            console.quiet = was_quiet


def to_be_sharded(config: ModelConfig, processes: Processes) -> ModelConfig:
    """Where a model is loaded: off the devices if these get no more than shards of it."""
    return config if processes.mesh is None else config.model_copy(update={"device": "cpu"})
