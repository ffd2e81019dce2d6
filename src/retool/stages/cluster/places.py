"""Which resources of Ray each learner and each sampler has, and who shares a GPU.

Ray counts CPUs and GPUs and shows a process no GPU but its own; it does not bound what one takes of them. With
`cluster.placement=colocated` learner and sampler of the same number have halves of the same GPU.
"""

from __future__ import annotations

from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from retool.cluster.hardware import GIB
from retool.cluster.memory import room_on_gpu, sampler_count
from retool.cluster.shape import find_shape
from retool.config.schema import Config
from retool.errors import UsageError

_HALF = 0.5
_MIB = 1 << 20


def resources(config: Config) -> dict[str, float]:
    """What Ray must have for all learners and samplers at the same time."""
    learners, samplers = config.cluster.learners, sampler_count(config)
    needed = {"CPU": float((learners + samplers) * _cpus(config))}
    if config.model.device != "cpu":
        needed["GPU"] = float(learners + samplers * _gpus_of_sampler(config))
    return needed


def reserve(config: Config) -> PlacementGroup:
    """A place for each learner, on as few nodes as possible; with `colocated`, for the sampler of its number, too."""
    bundle = {"CPU": (2 if _is_colocated(config) else 1) * _cpus(config)}
    if config.model.device != "cpu":
        bundle["GPU"] = 1
    return placement_group([bundle] * config.cluster.learners, strategy="PACK")


def options_of_learner(config: Config, places: PlacementGroup, rank: int) -> dict[str, Any]:
    """Ray's options for the learner `rank`, in its one of the places that are reserved."""
    gpus = 0 if config.model.device == "cpu" else _HALF if _is_colocated(config) else 1
    return {"num_cpus": _cpus(config), "num_gpus": gpus, "scheduling_strategy": _in(places, rank)}


def options_of_sampler(config: Config, shared: PlacementGroup | None, number: int) -> dict[str, Any]:
    """Ray's options for sampler `number`: in a learner's place where these are `shared`, else where there is room."""
    gpus = _HALF if shared is not None else _gpus_of_sampler(config)
    return {
        "num_cpus": _cpus(config),
        "num_gpus": 0 if config.model.device == "cpu" else gpus,
        "scheduling_strategy": "SPREAD" if shared is None else _in(shared, number),
    }


def config_of_sampler(config: Config, number: int) -> Config:
    """The run's config as sampler `number` has it.

    Before vLLM each has a server that no other one uses: that of `sampler.urls` with its number, or one that it starts
    on all of its GPUs. The copy of the weights that it hands over stays in main memory.
    """
    if config.sampler.backend != "vllm":
        return config
    sampler, size = config.sampler, config.cluster.tensor_parallel
    if sampler.urls:
        own = sampler.model_copy(update={"urls": sampler.urls[number : number + 1]})
    elif size > 1:
        own = sampler.model_copy(update={"vllm_args": ("--tensor-parallel-size", str(size), *sampler.vllm_args)})
    else:
        own = sampler
    return config.model_copy(update={"model": config.model.model_copy(update={"device": "cpu"}), "sampler": own})


def beside_learner(config: Config, memory: int) -> Config:
    """The config of a sampler that shares a GPU of `memory` bytes: its cache takes what the plan leaves it, not a share
    of what the learner has not taken yet. Raises UsageError where that is nothing."""
    if config.rollout.cache_mib is not None:
        return config
    room = room_on_gpu(find_shape(config.model), config, memory)
    if room < _MIB:
        raise UsageError(
            f"a GPU of {memory / GIB:.0f} GiB that learner and sampler share has no room for a KV cache beside them; "
            "`retool cluster plan` says what takes it, and what would help"
        )
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"cache_mib": room // _MIB})})


def _is_colocated(config: Config) -> bool:
    return config.cluster.placement == "colocated"


def _cpus(config: Config) -> int:
    return max(1, config.threads)


def _gpus_of_sampler(config: Config) -> int:
    """Beside the learners': none for one that has theirs, or a server elsewhere."""
    return 0 if _is_colocated(config) or config.sampler.urls else config.cluster.tensor_parallel


def _in(places: PlacementGroup, number: int) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=number)
