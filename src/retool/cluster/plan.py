"""The plan of a run: what goes where, the memory of each GPU and of each node, and why it fits or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from retool.cluster.advice import advise_learner, advise_sampler, gib
from retool.cluster.hardware import Hardware
from retool.cluster.memory import (
    Item,
    asleep,
    held_by_learner,
    held_by_sampler,
    keeps_memory,
    kv_cache,
    kv_token_bytes,
    longest,
    main_memory,
    passes_of_learner,
    room_for_cache,
    sampler_count,
    total,
    transport,
    usable,
    width,
)
from retool.cluster.placement import Placement, place
from retool.cluster.shape import ModelShape, find_shape
from retool.cluster.step_time import StepTime, expect_step
from retool.config.cluster import ClusterConfig
from retool.config.schema import Config
from retool.errors import UsageError


@dataclass(frozen=True, slots=True)
class Memory:
    """What one GPU, or one node's main memory, holds at its fullest moment; all that do the same work are equal."""

    owner: str
    items: list[Item]
    capacity: int

    @property
    def used(self) -> int:
        return total(self.items)

    @property
    def fits(self) -> bool:
        return self.used <= self.capacity


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """`problems` are sentences, each with numbers and with what would help; none: it fits. `notes` are worth knowing.

    `kv_rows` is how many trajectories of full length the cache of one sampler holds, of the `rollout.rows` that are
    to decode at a time.
    """

    hardware: Hardware
    shape: ModelShape
    placement: Placement
    transport: str
    gpus: list[Memory]
    nodes: list[Memory]
    kv_rows: int
    step: StepTime | None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return not self.problems

    def check(self) -> None:
        """Raise UsageError with all that speaks against it, if anything does."""
        if self.problems:
            raise UsageError("; ".join(self.problems))


def make_plan(config: Config, hardware: Hardware | None = None, mean_tokens: int | None = None) -> ClusterPlan:
    """Plan the run of `config` on `hardware` (None: as `cluster` describes it). `mean_tokens` of a response are for the
    expected seconds only. Raises UsageError where there is nothing to plan, or not even a place for each process."""
    cluster = config.cluster
    if cluster is None:
        raise UsageError(
            "this config runs on one machine: a plan needs the section `cluster`, such as cluster.learners=8"
        )
    hardware = hardware or Hardware.of(cluster)
    shape = find_shape(config.model)
    _check_settings(config, cluster, shape)
    placement = place(cluster, hardware, config.sampler.urls)
    held, resident = held_by_sampler(shape, config), held_by_learner(shape, config)
    room = room_for_cache(shape, config, hardware)
    cache, rows = kv_cache(shape, config, room)
    gpus = _gpus(config, cluster, hardware, shape, resident, [*held, cache])
    nodes = _nodes(config, cluster, hardware, shape, placement, [*held, cache])
    kv_tokens = room // kv_token_bytes(shape, config)
    plan = ClusterPlan(
        hardware,
        shape,
        placement,
        transport(cluster, hardware),
        gpus,
        nodes,
        rows,
        expect_step(shape, config, cluster, hardware, kv_tokens, mean_tokens) if rows else None,
    )
    plan.problems.extend(_problems(plan, config, cluster))
    plan.notes.extend(_notes(plan, config, cluster))
    return plan


def check_devices(config: Config) -> None:
    """Raises UsageError for samplers of more devices than their backend can use."""
    t = config.cluster.tensor_parallel
    if t > 1 and config.sampler.backend == "engine":
        raise UsageError(f"cluster.tensor_parallel={t} needs sampler.backend=vllm; the engine samples on one device")


def _check_settings(config: Config, cluster: ClusterConfig, shape: ModelShape) -> None:
    """Settings that contradict each other, whatever the memory."""
    check_devices(config)
    t, heads, kv_heads = cluster.tensor_parallel, shape.heads, shape.kv_heads
    if heads % t or (kv_heads % t and t % kv_heads):
        allowed = [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
        raise UsageError(
            f"cluster.tensor_parallel={t} does not divide the model's {heads} query and {kv_heads} key heads; "
            f"{', '.join(map(str, allowed))} would"
        )
    if shape.context and config.rollout.max_tokens >= shape.context:
        raise UsageError(
            f"rollout.max_tokens={config.rollout.max_tokens} leaves no room for a prompt in the model's context of "
            f"{shape.context} tokens; lower it"
        )
    if config.sampler.urls and cluster.placement == "colocated":
        raise UsageError(
            "cluster.placement=colocated has samplers and learners take turns, which the servers of sampler.urls "
            "cannot; set cluster.placement=apart"
        )
    batch = config.rl.prompts * config.rl.samples
    if cluster.queue is not None and cluster.queue < batch:
        raise UsageError(
            f"cluster.queue={cluster.queue} holds fewer trajectories than a step learns from, {config.rl.prompts} "
            f"prompts × {config.rl.samples} samples = {batch}; raise it or leave it out"
        )


def _gpus(
    config: Config,
    cluster: ClusterConfig,
    hardware: Hardware,
    shape: ModelShape,
    resident: list[Item],
    sampling: list[Item],
) -> list[Memory]:
    if hardware.gpu is None:
        return []
    memory, passes = hardware.gpu.memory, passes_of_learner(shape, config)
    learner = usable(memory, "learner")
    if cluster.placement == "colocated":
        room = learner - asleep()
        kept = [*resident, *passes] if keeps_memory(config) else resident
        own = [Item(f"learner's {item.name}", item.size, item.formula) for item in kept]
        if keeps_memory(config):
            return [Memory("learner and sampler", [*own, *sampling], room)]
        return [Memory("while learning", [*resident, *passes], room), Memory("while sampling", [*own, *sampling], room)]
    found = [Memory("learner", [*resident, *passes], learner)]
    if not config.sampler.urls:
        found.append(Memory("sampler", sampling, usable(memory, "sampler")))
    return found


def _nodes(
    config: Config,
    cluster: ClusterConfig,
    hardware: Hardware,
    shape: ModelShape,
    placement: Placement,
    sampling: list[Item],
) -> list[Memory]:
    """The main memory of each node; without GPUs the processes' own memory is part of it."""
    found = []
    learning = [*held_by_learner(shape, config), *passes_of_learner(shape, config)]
    for node in range(hardware.nodes):
        learners, samplers = len(placement.on(node, "learner")), len(placement.on(node, "sampler"))
        items = main_memory(
            shape,
            config,
            hardware,
            learners=learners,
            samplers=samplers,
            writer=node == 0,
            sandbox=node in placement.sandboxes,
        )
        if hardware.gpu is None:
            for name, count, each in (("learners", learners, learning), ("samplers", samplers, sampling)):
                items += [Item(f"{name}: {i.name}", count * i.size, f"{count} · ({i.formula})") for i in each if count]
        found.append(Memory(f"node {node}", items, hardware.node_memory))
    return found


def _problems(plan: ClusterPlan, config: Config, cluster: ClusterConfig) -> list[str]:
    problems = []
    for memory in plan.gpus:
        if memory.owner in ("learner", "while learning") and not memory.fits:
            parts = _written(memory.items)
            problems.append(
                f"a learner's GPU needs {gib(memory.used)} ({parts}) and has {gib(memory.capacity)} to use; "
                f"{advise_learner(plan.shape, config, plan.hardware, memory.capacity)}"
            )
    if plan.hardware.gpu and not plan.kv_rows and not config.sampler.urls:
        memory = plan.gpus[-1]
        parts = _written(memory.items[:-1])
        row = kv_token_bytes(plan.shape, config) * (longest(config) + 1)
        left = memory.capacity - total(memory.items[:-1])
        problems.append(
            f"a sampler's GPU has {gib(memory.capacity)} to use; {parts} leave {gib(left)} for the KV cache, and one "
            f"trajectory of {longest(config):,} tokens takes {gib(row)}; "
            f"{advise_sampler(plan.shape, config, plan.hardware)}"
        )
    for memory in plan.nodes:
        if not memory.fits:
            parts = _written(memory.items)
            largest = max(memory.items, key=lambda item: item.size)
            problems.append(
                f"{memory.owner} needs {gib(memory.used)} of main memory ({parts}) and has {gib(memory.capacity)}; the "
                f"largest part is {largest.name}: {_lighten(largest.name)}"
            )
            break
    return problems


def _written(items: list[Item]) -> str:
    """What is not next to nothing."""
    return ", ".join(f"{item.name} {gib(item.size)}" for item in items if item.size > total(items) // 1000)


def _lighten(name: str) -> str:
    if "sandbox" in name:
        return "lower sandbox.workers or sandbox.memory_mib"
    if "learner" in name:
        return "spread the learners over more nodes"
    return "take more nodes, or nodes with more memory"


def _notes(plan: ClusterPlan, config: Config, cluster: ClusterConfig) -> list[str]:
    notes = []
    rows, batch = config.rollout.rows, config.rl.prompts * config.rl.samples
    if plan.hardware.gpu and not config.sampler.urls and 0 < plan.kv_rows < rows:
        notes.append(
            f"the KV cache holds {plan.kv_rows} of rollout.rows={rows} trajectories at full length; shorter ones let "
            "more decode, the others wait"
        )
    samplers = sampler_count(config)
    if cluster.mode != "async" and samplers * rows > batch:
        notes.append(
            f"{samplers} samplers have {samplers * rows} rows for the {batch} trajectories of a step: "
            "some stay empty; fewer samplers or a lower rollout.rows would do as well"
        )
    mini_batch = batch // config.rl.mini_batches
    if mini_batch < cluster.learners:
        notes.append(
            f"a mini-batch of {mini_batch} trajectories leaves some of {cluster.learners} learners without work"
        )
    if plan.placement.idle:
        places = "GPUs" if plan.hardware.gpu else "places"
        notes.append(f"{plan.placement.idle} of {plan.hardware.gpus} {places} have nothing to do")
    if plan.transport == "nccl":
        notes.append("NCCL is on paper: a run sends weights through Ray's object store, which is slower")
    if cluster.placement == "colocated" and not keeps_memory(config):
        notes.append(
            "that vLLM takes turns with learners is on paper: a run takes cluster.placement=apart, or "
            "sampler.backend=engine"
        )
    if width(config) == 4 and plan.hardware.gpu:
        notes.append("model.dtype=float32 computes and samples at a fraction of the speed of bfloat16 on GPUs")
    return notes
