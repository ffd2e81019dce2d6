"""Settings of a run over several machines: which processes there are, where they go, how far they may drift apart."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from retool.config.base import Section


class ClusterConfig(Section):
    learners: int = Field(1, gt=0)
    """Processes that train together (FSDP2), one a GPU; each holds a shard of the weights and of the optimizer."""

    samplers: int = Field(1, gt=0)
    """Processes that sample, `rollout.rows` trajectories each; with `sampler.urls`, those servers instead."""

    tensor_parallel: int = Field(1, gt=0)
    """GPUs of one sampler, all of one node."""

    sandboxes: int | None = Field(None, gt=0)
    """Supervisors that run code, at most one a node; null: one on every node. Trajectories use the nearest."""

    placement: Literal["apart", "colocated"] = "apart"
    """`apart`: learners and samplers have GPUs of their own; `colocated`: they take turns on the same ones, with
    `sampler.backend=engine`; of vLLM in plans only."""

    mode: Literal["sync", "one_step_off", "async"] = "sync"
    """`sync`: sample, learn, sample; `one_step_off`: a step is sampled while the one before is learned from; `async`:
    sampling never stops, and weights change in the middle of trajectories. The latter two set `rl.old_logprobs=learner`
    and `rl.correction=truncated` where a config says nothing of both."""

    staleness: int = Field(2, gt=0)
    """`async` only: a trajectory is learned from at most this many versions of the weights after its first token."""

    queue: int | None = Field(None, gt=0)
    """Trajectories that are finished and wait for the learner, at most; null: what one step learns from, for each
    version that they may be behind."""

    sandbox_queue: int = Field(1024, gt=0)
    """Calls that wait at one sandbox, at most; further ones go to another node's."""

    weights: Literal["auto", "nccl", "shared_memory", "files"] = "auto"
    """How weights reach the samplers. `shared_memory`: Ray's object store, which is shared memory within a node and one
    transfer between two; `files`: in `sampler.weights_folder`, which all nodes see; `nccl`: in plans only; `auto`: in
    plans for GPUs `nccl`, else `shared_memory`."""

    nodes: int = Field(1, gt=0)
    """Machines, for a plan without them at hand; a cluster that is there is asked."""

    gpus_per_node: int = Field(8, gt=0)
    """GPUs of a machine, for the same."""

    gpu: Literal["a100-80", "h100-80", "h200-141", "h20-96", "b200-180", "l40s-48", "cpu"] = "h100-80"
    """Which GPUs, for the same; `cpu`: none, and `gpus_per_node` counts processes that share the main memory."""

    node_memory_gib: int | None = Field(None, gt=0)
    """Main memory of a machine, for the same; null: 1,800 GiB, as clouds give with eight GPUs; with `cpu` that of this
    machine, which all nodes share."""

    node_cores: int | None = Field(None, gt=0)
    """CPU cores of a machine, for the same; null: 96, with `cpu` those of this machine."""

    @property
    def versions_behind(self) -> int:
        """How many versions older than the learner's the weights may be that wrote a trajectory's first token."""
        return {"sync": 0, "one_step_off": 1, "async": self.staleness}[self.mode]

    @model_validator(mode="after")
    def _take_turns(self) -> Self:
        """Raises ValueError with a sentence for the user, as all of the config's own checks do."""
        if self.placement == "apart":
            return self
        if self.mode != "sync":
            raise ValueError(
                f"cluster.mode={self.mode} samples while the learner learns, and with cluster.placement=colocated they "
                "take turns on the same GPUs; set cluster.mode=sync or cluster.placement=apart"
            )
        sampling = self.samplers * self.tensor_parallel
        if sampling != self.learners:
            samplers = max(1, self.learners // self.tensor_parallel)
            raise ValueError(
                f"cluster.placement=colocated puts samplers on the learners' GPUs, but cluster.samplers="
                f"{self.samplers} × cluster.tensor_parallel={self.tensor_parallel} are {sampling} GPUs and "
                f"cluster.learners are {self.learners}; set cluster.samplers={samplers}, or cluster.placement=apart"
            )
        return self
