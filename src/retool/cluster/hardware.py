"""What machines offer: figures of the makers, and shares of them that systems reach."""

from __future__ import annotations

import os
from dataclasses import dataclass

from retool.config.cluster import ClusterConfig

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` as CUDA reports it (bytes). From the data sheets: dense bf16 FLOP/s, and bytes/s of its memory, of the
    link to others of its node (one direction) and of its share of the network."""

    name: str
    memory: int
    flops: float
    bandwidth: float
    link: float
    network: float


_TERA, _GIGA = 1e12, 1e9
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-80", int(79.1 * GIB), 312 * _TERA, 2.04 * _TERA, 300 * _GIGA, 25 * _GIGA),
        Gpu("h100-80", int(79.1 * GIB), 989 * _TERA, 3.35 * _TERA, 450 * _GIGA, 50 * _GIGA),
        Gpu("h200-141", int(139.8 * GIB), 989 * _TERA, 4.8 * _TERA, 450 * _GIGA, 50 * _GIGA),
        Gpu("h20-96", int(95.1 * GIB), 148 * _TERA, 4.0 * _TERA, 450 * _GIGA, 50 * _GIGA),
        Gpu("b200-180", int(178.3 * GIB), 2250 * _TERA, 7.7 * _TERA, 900 * _GIGA, 50 * _GIGA),
        Gpu("l40s-48", int(44.4 * GIB), 362 * _TERA, 0.864 * _TERA, 32 * _GIGA, 12.5 * _GIGA),
    )
}

_MEMORY_GIB, _CORES = 1800, 96  # of a node with eight GPUs


@dataclass(frozen=True, slots=True)
class Hardware:
    """Equal nodes. Without a `gpu` there are `gpus_per_node` processes a node that share its main memory (bytes)."""

    nodes: int
    gpus_per_node: int
    gpu: Gpu | None
    node_memory: int
    node_cores: int

    @classmethod
    def of(cls, config: ClusterConfig) -> Hardware:
        """As the config describes it. Of CPUs that it says nothing of: this machine, in equal parts."""
        gpu = GPUS.get(config.gpu)
        memory, cores = config.node_memory_gib, config.node_cores
        if gpu is None:
            own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // config.nodes
            return cls(
                config.nodes,
                config.gpus_per_node,
                None,
                memory * GIB if memory else own,
                cores or max(1, (os.cpu_count() or 1) // config.nodes),
            )
        return cls(config.nodes, config.gpus_per_node, gpu, (memory or _MEMORY_GIB) * GIB, cores or _CORES)

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    def __str__(self) -> str:
        kind = self.gpu.name if self.gpu else "processes on CPUs"
        return f"{self.gpus} × {kind} ({self.counted})"

    @property
    def counted(self) -> str:
        """As a text: `2 nodes of 8`."""
        return f"{self.nodes} node{'s' * (self.nodes > 1)} of {self.gpus_per_node}"
