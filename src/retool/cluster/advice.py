"""What would make a placement fit that does not: single changes of the config, tried one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from retool.cluster.hardware import GIB, GPUS, Gpu, Hardware
from retool.cluster.memory import (
    held_by_learner,
    keeps_memory,
    kv_cache,
    longest,
    needs_critic,
    passes_of_learner,
    room_for_cache,
    total,
)
from retool.cluster.shape import ModelShape
from retool.config.schema import Config

_MOST_LEARNERS = 4096
_SHORT = 2048  # tokens of a response, below which nobody is told to lower them
_SHOWN = 4

Settings = dict[str, Any]
"""Names of settings, `section__setting`, and other values for them."""


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def changed(config: Config, **settings: Any) -> Config:
    """The config with some `Settings` replaced, whether or not they go together."""
    for name, value in settings.items():
        *path, last = name.split("__")
        sections = [config]
        for part in path:
            sections.append(getattr(sections[-1], part))
        new = sections.pop().model_copy(update={last: value})
        for part, section in zip(reversed(path), reversed(sections), strict=True):
            new = section.model_copy(update={part: new})
        config = new
    return config


def advise_learner(shape: ModelShape, config: Config, hardware: Hardware, capacity: int) -> str:
    """Changes with which a learner fits into `capacity` bytes: single ones, else with gradient checkpointing beside."""

    def fits(settings: Settings) -> bool:
        other = changed(config, **settings)
        return total([*held_by_learner(shape, other), *passes_of_learner(shape, other)]) <= capacity

    checkpointing: Settings = {"model__gradient_checkpointing": True}
    changes = [checkpointing, *_smaller_learners(config, hardware)]
    found = _first_of_each(change for change in changes if fits(change))
    if not found and not config.model.gradient_checkpointing:
        found = _first_of_each(checkpointing | change for change in changes[1:] if fits(checkpointing | change))
    return _advice(map(_written, found[:_SHOWN]))


def _smaller_learners(config: Config, hardware: Hardware) -> Iterator[Settings]:
    """Changes after which a learner holds less."""
    if config.rl.micro_batch_tokens > longest(config):
        yield {"rl__micro_batch_tokens": longest(config)}
    yield from _more_learners(config, hardware)
    if config.model.dtype == "float32":
        yield {"model__dtype": "bfloat16"}
    if needs_critic(config) and config.rl.critic.trunk == "own":
        yield {"rl__critic__trunk": "shared"}
    if config.rollout.max_tokens > _SHORT:
        yield {"rollout__max_tokens": config.rollout.max_tokens // 2, "rl__micro_batch_tokens": 1024}
    if not config.model.lora.rank:
        yield {"model__lora__rank": 32}


def _more_learners(config: Config, hardware: Hardware) -> Iterator[Settings]:
    """Twice as many, and so on, with the nodes that they need and, where they share GPUs, the samplers."""
    cluster = config.cluster
    assert cluster is not None
    learners, size = cluster.learners, cluster.tensor_parallel
    while learners < _MOST_LEARNERS:
        learners *= 2
        change: Settings = {"cluster__learners": learners}
        needed = learners
        if cluster.placement == "colocated":
            change["cluster__samplers"] = learners // size
        elif not config.sampler.urls:
            needed += cluster.samplers * size
        if needed > hardware.gpus:
            change["cluster__nodes"] = -(-needed // hardware.gpus_per_node)
        yield change


def advise_sampler(shape: ModelShape, config: Config, hardware: Hardware) -> str:
    """More GPUs a sampler, other GPUs, shorter trajectories: whatever leaves room for one."""
    cluster, gpu = config.cluster, hardware.gpu
    assert cluster is not None and gpu is not None

    def fits(settings: Settings, gpu: Gpu = gpu) -> bool:
        other = changed(config, **settings)
        return kv_cache(shape, other, room_for_cache(shape, other, replace(hardware, gpu=gpu)))[1] > 0

    sizes = [2**n for n in range(1, 8) if cluster.tensor_parallel < 2**n <= hardware.gpus_per_node]
    changes: list[Settings] = []
    for size in sizes if config.sampler.backend == "vllm" else ():
        if shape.heads % size == 0:
            samplers = max(1, cluster.samplers * cluster.tensor_parallel // size)
            changes.append({"cluster__tensor_parallel": size, "cluster__samplers": samplers})
    if cluster.placement == "colocated":
        if keeps_memory(config):
            changes += [{"model__gradient_checkpointing": True}, *_smaller_learners(config, hardware)]
        else:
            changes += _more_learners(config, hardware)
    if config.rollout.max_tokens > _SHORT:
        changes.append({"rollout__max_tokens": config.rollout.max_tokens // 2})
    found = [_written(change) for change in _first_of_each(change for change in changes if fits(change))]
    larger = sorted((other for other in GPUS.values() if other.memory > gpu.memory), key=lambda other: other.memory)
    found += [f"cluster.gpu={other.name}" for other in larger if fits({}, other)][:1]
    return _advice(found[:_SHOWN])


def _first_of_each(changes: Iterable[Settings]) -> list[Settings]:
    """The first, which is the smallest, of changes of the same settings."""
    found: dict[str, Settings] = {}
    for change in changes:
        found.setdefault("".join(name for name in change if name != "cluster__nodes"), change)
    return list(found.values())


def _advice(found: Iterable[str]) -> str:
    written = ", or with ".join(found)
    if not written:
        return "no single change makes it fit: take a smaller model or GPUs with more memory"
    return f"it would fit with {written}"


def _written(settings: Settings) -> str:
    words = (str(value).lower() if isinstance(value, bool) else str(value) for value in settings.values())
    return " ".join(f"{name.replace('__', '.')}={word}" for name, word in zip(settings, words, strict=True))
