"""How long a step is expected to take: FLOPs and bytes by phase, over what the hardware gives of them in practice.

Shares of the makers' figures are those that published measurements show (docs/scaling.md lists them and what they were
compared with). A plan's seconds are for deciding between placements, not a promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from retool.cluster.hardware import Gpu, Hardware
from retool.cluster.memory import longest, needs_critic, row_tokens, sampler_count, transport, width
from retool.cluster.shape import ModelShape
from retool.config.cluster import ClusterConfig
from retool.config.schema import Config

MEAN_PROMPT = 256
"""Tokens of a prompt, for time."""

_DECODE_BANDWIDTH = (
    0.73  # of the memory's, in decode steps: slope of Qwen2.5's speed table (vLLM, A100) from 0.5B to 32B
)
_DECODE_FLOPS = 0.6  # of the peak, in products with hundreds of rows
_DECODE_OVERHEAD = 2.4e-3  # seconds of a step whatever the model: the same table's intercept
_ALL_REDUCE = 35e-6  # seconds of one of the two all-reduces of a layer: the same table, 32B on 2 GPUs, 72B on 4
_TRAINING_FLOPS = 0.35  # of the peak: prime-rl's 4B model at 64k tokens on H200, 36 %
_LINK = 0.7  # of a link's bytes/s that collectives reach
_TRANSFER = {"nccl": 15e9, "shared_memory": 4e9, "files": 1e9}  # bytes/s; NCCL: verl's checkpoint engine, 14 to 20


@dataclass(frozen=True, slots=True)
class DecodeTime:
    """Seconds of a decode step: the weights are read once, each row's products are computed, its cache is read."""

    weights_seconds: float
    row_seconds: float
    token_seconds: float
    overhead: float

    @classmethod
    def of(cls, shape: ModelShape, gpu: Gpu, tensor_parallel: int, b: int = 2) -> DecodeTime:
        """By the roofline of a sampler of `tensor_parallel` GPUs that holds weights of `b` bytes."""
        t, bandwidth = tensor_parallel, _DECODE_BANDWIDTH * gpu.bandwidth
        reduces = 2 * shape.layers * _ALL_REDUCE if t > 1 else 0.0
        return cls(
            weights_seconds=b * shape.computed_parameters / t / bandwidth,
            row_seconds=2 * shape.computed_parameters / t / (_DECODE_FLOPS * gpu.flops),
            token_seconds=b * shape.kv_elements / min(t, shape.kv_heads) / bandwidth,
            overhead=_DECODE_OVERHEAD + reduces,
        )

    def fixed(self, rows: float) -> float:
        """What does not depend on the cache: the larger of reading the weights and of computing with them."""
        return self.overhead + max(self.weights_seconds, self.row_seconds * rows)

    def seconds(self, rows: float, cached: float) -> float:
        """With `cached` tokens in the cache of all rows together."""
        return self.fixed(rows) + self.token_seconds * cached


@dataclass(frozen=True, slots=True)
class Phase:
    """What a part of a step takes, and how that was found."""

    name: str
    seconds: float
    formula: str


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step: `tokens` of prompts and responses, FLOPs of each phase that computes, and the phases' seconds.

    `seconds` are those of the whole step: with `sync` the phases' sum, else the longer side's and the transfer's."""

    trajectories: int
    response_tokens: int
    tokens: int
    flops: dict[str, float]
    phases: list[Phase]
    seconds: float

    @property
    def trajectories_per_second(self) -> float:
        return self.trajectories / self.seconds


def forward_flops(shape: ModelShape, tokens: float, length: float) -> float:
    """Of a forward pass over `tokens`, in sequences of `length`: 2 for each parameter that a token meets, and for each
    token before it 4·H·d in each layer, of which there are length / 2 on average."""
    return tokens * (2 * shape.computed_parameters + 2 * shape.layers * shape.attention_width * length)


def pass_seconds(shape: ModelShape, config: Config, cluster: ClusterConfig, hardware: Hardware) -> float:
    """Of moving weights and gradients in one forward and backward pass of FSDP2: gathered twice in b bytes, summed once
    in fp32."""
    gpu, b = hardware.gpu, width(config)
    if gpu is None or cluster.learners == 1:
        return 0.0
    link = gpu.link if cluster.learners <= hardware.gpus_per_node else gpu.network
    return (2 * b + 4) * shape.parameters / (_LINK * link)


def expect_step(
    shape: ModelShape,
    config: Config,
    cluster: ClusterConfig,
    hardware: Hardware,
    kv_tokens: int,
    mean_tokens: int | None,
) -> StepTime | None:
    """What a step of `prompts × samples` trajectories takes whose responses have `mean_tokens` (None: half of
    `rollout.max_tokens`). `kv_tokens` fit into the cache of one sampler. None for CPUs, whose speed nobody knows."""
    if hardware.gpu is None:
        return None
    mean = mean_tokens or config.rollout.max_tokens // 2
    trajectories = config.rl.prompts * config.rl.samples
    tokens = trajectories * (mean + MEAN_PROMPT)
    forward = forward_flops(shape, tokens, mean + MEAN_PROMPT)
    models = 2 if needs_critic(config) and config.rl.critic.trunk == "own" else 1
    passes = 3 + config.model.gradient_checkpointing
    flops = {"update": models * passes * forward * config.rl.epochs}
    if needs_critic(config) or config.rl.kl or config.rl.old_logprobs == "learner":
        flops["log-probs"] = (models + bool(config.rl.kl)) * forward
    peak = cluster.learners * _TRAINING_FLOPS * hardware.gpu.flops
    moving = pass_seconds(shape, config, cluster, hardware) * tokens / (cluster.learners * row_tokens(config))
    update = max(flops["update"] / peak, moving * config.rl.epochs * models)
    phases = [_rollout(shape, config, cluster, hardware.gpu, kv_tokens, mean)]
    if "log-probs" in flops:
        phases.append(
            Phase("log-probs", flops["log-probs"] / peak, f"{flops['log-probs']:.3g} FLOPs / {peak:.3g} FLOP/s")
        )
    how = f"{flops['update']:.3g} FLOPs / {peak:.3g} FLOP/s"
    phases.append(Phase("update", update, how if update > moving * models else "moving weights between learners"))
    way = transport(cluster, hardware)
    size = width(config) * shape.parameters
    rate = _TRANSFER[way]
    phases.append(Phase("weights", size / rate, f"{size / 1e9:.1f} GB / {rate / 1e9:.0f} GB/s ({way})"))
    return StepTime(trajectories, trajectories * mean, tokens, flops, phases, _whole(phases, cluster))


def _rollout(shape: ModelShape, config: Config, cluster: ClusterConfig, gpu: Gpu, kv_tokens: int, mean: int) -> Phase:
    """All tokens at the rate of full samplers; where a step waits for its last trajectory, what the longest one has
    more than the mean, at the pace of a sampler that is nearly empty.

    A row that is decoding holds on average two thirds of the mean response, if lengths are spread evenly.
    """
    decode = DecodeTime.of(shape, gpu, cluster.tensor_parallel, width(config))
    held = MEAN_PROMPT + 2 * mean / 3
    trajectories = config.rl.prompts * config.rl.samples
    samplers = sampler_count(config)
    rows = max(1, min(config.rollout.rows, int(kv_tokens / held), trajectories // samplers))
    step = decode.seconds(rows, rows * held)
    seconds = trajectories * mean / (samplers * rows / step)
    formula = f"{trajectories * mean:,} tokens / ({samplers} samplers · {rows} rows / {1000 * step:.1f} ms)"
    if cluster.mode != "async":
        rest = max(0, longest(config) - MEAN_PROMPT - mean)
        alone = decode.seconds(1, longest(config))
        seconds += rest * alone
        formula += f" + {rest:,} tokens · {1000 * alone:.1f} ms"
    return Phase("rollout", seconds, formula)


def _whole(phases: list[Phase], cluster: ClusterConfig) -> float:
    seconds = {phase.name: phase.seconds for phase in phases}
    if cluster.mode == "sync":
        return sum(seconds.values())
    weights, rollout = seconds.pop("weights"), seconds.pop("rollout")
    return max(rollout, sum(seconds.values())) + weights
