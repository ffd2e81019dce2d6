"""Which process goes to which GPUs of which node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retool.cluster.hardware import Hardware
from retool.config.cluster import ClusterConfig
from retool.errors import UsageError


@dataclass(frozen=True, slots=True)
class Process:
    """A learner or a sampler, and the GPUs that it has, all of one node."""

    kind: str
    index: int
    node: int
    gpus: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.index}"


@dataclass(frozen=True, slots=True)
class Placement:
    """`sandboxes` are the nodes that run code. Learners come first, node by node, so that most of their traffic stays
    inside nodes; agents run beside the samplers."""

    processes: list[Process]
    sandboxes: list[int]
    idle: int = 0
    by_node: dict[int, list[Process]] = field(default_factory=dict)

    def on(self, node: int, kind: str) -> list[Process]:
        return [process for process in self.by_node.get(node, ()) if process.kind == kind]


def place(cluster: ClusterConfig, hardware: Hardware, servers: Sequence[str] = ()) -> Placement:
    """Give each process its place; `servers` sample elsewhere already. Raises UsageError where there are too few GPUs,
    with the numbers and what would do."""
    _check_nodes(cluster, hardware)
    size, apart = cluster.tensor_parallel, cluster.placement == "apart"
    samplers = 0 if servers else cluster.samplers
    free = [list(range(hardware.gpus_per_node)) for _ in range(hardware.nodes)]
    _check_count(cluster, hardware, samplers)
    processes = []
    for index in range(cluster.learners):
        node = index // hardware.gpus_per_node
        processes.append(Process("learner", index, node, (free[node].pop(0),)))
    if not apart:
        free = [[p.gpus[0] for p in processes if p.node == node] for node in range(hardware.nodes)]
    for index in range(samplers):
        node = next((node for node, gpus in enumerate(free) if len(gpus) >= size), None)
        if node is None:
            raise UsageError(_no_room_inside_a_node(cluster, hardware, index))
        processes.append(Process("sampler", index, node, tuple(free[node][:size])))
        free[node] = free[node][size:]
    by_node = {node: [p for p in processes if p.node == node] for node in range(hardware.nodes)}
    sandboxes = list(range(cluster.sandboxes or hardware.nodes))
    return Placement(processes, sandboxes, sum(map(len, free)) if apart else hardware.gpus - cluster.learners, by_node)


def _check_nodes(cluster: ClusterConfig, hardware: Hardware) -> None:
    if cluster.tensor_parallel > hardware.gpus_per_node:
        raise UsageError(
            f"cluster.tensor_parallel={cluster.tensor_parallel} asks for more GPUs than a node has "
            f"({hardware.gpus_per_node}), and a sampler must stay on one node; lower it, or take GPUs with more memory"
        )
    if cluster.sandboxes and cluster.sandboxes > hardware.nodes:
        raise UsageError(
            f"cluster.sandboxes={cluster.sandboxes} is more than there are nodes ({hardware.nodes}), each of which "
            "needs one; leave it out"
        )


def _check_count(cluster: ClusterConfig, hardware: Hardware, samplers: int) -> None:
    size, apart = cluster.tensor_parallel, cluster.placement == "apart"
    sampling = samplers * size if apart else 0
    needed = cluster.learners + sampling
    if needed <= hardware.gpus:
        return
    asked = f"{cluster.learners} for learners"
    if sampling:
        asked += f", {samplers} × {size} for samplers"
    advice = [f"cluster.nodes={-(-needed // hardware.gpus_per_node)}"]
    fewer = (hardware.gpus - cluster.learners) // size
    if sampling and fewer > 0:
        advice.append(f"cluster.samplers={fewer}")
    elif samplers and (both := hardware.gpus // size):
        turns = "" if not apart else "cluster.placement=colocated cluster.mode=sync "
        advice.append(f"{turns}cluster.learners={both * size} cluster.samplers={both}")
    elif not samplers:
        advice.append(f"cluster.learners={hardware.gpus}")
    raise UsageError(
        f"the cluster has {hardware.gpus} GPUs ({hardware.counted}), and {needed} are asked for ({asked}); there would "
        f"be a place for each process with {', or with '.join(advice)}"
    )


def _no_room_inside_a_node(cluster: ClusterConfig, hardware: Hardware, placed: int) -> str:
    size, per_node = cluster.tensor_parallel, hardware.gpus_per_node
    return (
        f"{placed} of {cluster.samplers} samplers have a place, and beside {cluster.learners} learners no node of "
        f"{hardware.counted} has {size} GPUs left for the next one; lower cluster.samplers, or take a "
        f"cluster.tensor_parallel that divides {per_node}, which leaves none over"
    )
