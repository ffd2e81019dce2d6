"""Systems of the presets in simulated time, and published speeds that their rooflines are held against."""

from __future__ import annotations

import json
from dataclasses import dataclass

from retool.cluster.advice import changed
from retool.cluster.hardware import GPUS, Hardware
from retool.cluster.memory import kv_token_bytes, longest
from retool.cluster.plan import make_plan
from retool.cluster.shape import find_shape
from retool.cluster.step_time import MEAN_PROMPT, DecodeTime, expect_step
from retool.config.load import load_config
from retool.config.schema import Config, ModelConfig
from scaling.simulation import System
from scaling.workload import LongTail

_READING_FLOPS = 0.35  # of the peak, as in training


def workload_of(config: Config, mean: int | None = None, **settings: float) -> LongTail:
    """Responses as the config allows them, of a mean of half of it."""
    most = config.rollout.max_tokens
    return LongTail(mean=mean or most // 2, longest=most, prompt_tokens=MEAN_PROMPT, **settings)


def system_of(config: Config, mean: int | None = None) -> System:
    """What `retool cluster plan` says of the config, as a system to simulate."""
    cluster = config.cluster
    plan = make_plan(config, mean_tokens=mean)
    plan.check()
    assert cluster and plan.step and plan.hardware.gpu
    phases = {phase.name: phase.seconds for phase in plan.step.phases}
    learning = (phases["update"] + phases.get("log-probs", 0.0)) / plan.step.tokens
    decode = DecodeTime.of(plan.shape, plan.hardware.gpu, cluster.tensor_parallel)
    peak = _READING_FLOPS * plan.hardware.gpu.flops * cluster.tensor_parallel
    return System(
        samplers=cluster.samplers,
        rows=rows_of(config, mean or config.rollout.max_tokens // 2),
        step=decode,
        read_seconds=2 * plan.shape.computed_parameters / peak,
        batch=config.rl.prompts * config.rl.samples,
        learn_seconds=lambda tokens: learning * tokens,
        transfer_seconds=phases["weights"],
        mode=cluster.mode,
        staleness=cluster.staleness,
        sandboxes=cluster.sandboxes or cluster.nodes,
        workers=config.sandbox.workers or plan.hardware.node_cores // 2,
    )


def rows_of(config: Config, mean: int) -> int:
    """Rows that a sampler's cache holds of responses which have, as they decode, two thirds of the mean on average."""
    plan = make_plan(config, mean_tokens=mean)
    sampler = plan.gpus[-1]
    room = sampler.capacity - sum(item.size for item in sampler.items if item.name != "KV cache")
    held = MEAN_PROMPT + 2 * mean // 3
    return max(1, min(config.rollout.rows, room // (kv_token_bytes(plan.shape, config) * min(held, longest(config)))))


def scaled(config: Config, gpus: int) -> Config:
    """The same run on so many GPUs in nodes of eight: half of them learn, half sample."""
    assert config.cluster
    samplers = max(1, gpus // 2 // config.cluster.tensor_parallel)
    return changed(config, cluster__nodes=gpus // 8, cluster__learners=gpus // 2, cluster__samplers=samplers)


def preset(name: str = "retool-32b", *overrides: str) -> Config:
    return load_config(Config, name, overrides)


@dataclass(frozen=True, slots=True)
class Published:
    """A decode speed that somebody measured: tokens per second of `rows` with `context` tokens each."""

    source: str
    model: str
    gpu: str
    gpus: int
    rows: int
    context: int
    tokens_per_second: float

    @property
    def expected(self) -> float:
        decode = DecodeTime.of(find_shape(ModelConfig(path=self.model)), GPUS[self.gpu], self.gpus)
        return self.rows / decode.seconds(self.rows, self.rows * self.context)


_QWEN = "Qwen2.5 speed benchmark, vLLM 0.6.3"
PUBLISHED = [
    Published(_QWEN, "Qwen/Qwen2.5-0.5B-Instruct", "a100-80", 1, 1, 1025, 311.55),
    Published(_QWEN, "Qwen/Qwen2.5-7B-Instruct", "a100-80", 1, 1, 1025, 84.28),
    Published(_QWEN, "Qwen/Qwen2.5-7B-Instruct", "a100-80", 1, 1, 31744, 70.33),
    Published(_QWEN, "Qwen/Qwen2.5-32B-Instruct", "a100-80", 1, 1, 1025, 22.13),
    Published(_QWEN, "Qwen/Qwen2.5-32B-Instruct", "a100-80", 1, 1, 15360, 19.91),
    Published(_QWEN, "Qwen/Qwen2.5-32B-Instruct", "a100-80", 2, 1, 31744, 31.82),
]


@dataclass(frozen=True, slots=True)
class PublishedStep:
    """A synchronous GRPO step that somebody measured, all GPUs sampling and then learning; reference and old
    log-probabilities computed, activations kept."""

    source: str
    model: dict[str, object]
    gpus: int
    tensor_parallel: int
    trajectories: int
    mean: int
    longest: int
    seconds: float

    @property
    def expected(self) -> float:
        config = preset(
            "retool-32b",
            "model.path=null",
            f"model.architecture={json.dumps(self.model)}",
            "model.gradient_checkpointing=false",
            "rl.algorithm=grpo",
            "rl.kl={k3: {}}",
            "rl.samples=32",
            f"rl.prompts={self.trajectories // 32}",
            f"rollout.max_tokens={self.longest}",
            "rl.micro_batch_tokens=4096",
            "rollout.rows=256",
            "cluster.placement=colocated",
            "cluster.mode=sync",
            f"cluster.learners={self.gpus}",
            f"cluster.samplers={self.gpus // self.tensor_parallel}",
            f"cluster.tensor_parallel={self.tensor_parallel}",
        )
        assert config.cluster
        step = expect_step(
            find_shape(config.model), config, config.cluster, Hardware.of(config.cluster), 1 << 40, self.mean
        )
        assert step
        return step.seconds


_NEMO = "NeMo RL 0.4, GRPO on DGX-H100"
_LLAMA = {"model_type": "llama", "num_key_value_heads": 8, "max_position_embeddings": 131_072}
PUBLISHED_STEPS = [
    PublishedStep(
        f"{_NEMO}, Llama 3.1 8B",
        _LLAMA
        | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"vocab_size": 128_256, "tie_word_embeddings": False},
        gpus=16,
        tensor_parallel=1,
        trajectories=2048,
        mean=1060 - MEAN_PROMPT,  # the average sequence is published
        longest=4096,
        seconds=97.7,
    ),
    PublishedStep(
        f"{_NEMO}, Qwen3 32B",
        {"model_type": "qwen3", "num_key_value_heads": 8, "max_position_embeddings": 40_960, "head_dim": 128}
        | {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64}
        | {"vocab_size": 151_936, "tie_word_embeddings": False},
        gpus=32,
        tensor_parallel=4,
        trajectories=2048,
        mean=3206 - MEAN_PROMPT,
        longest=4096,
        seconds=393.0,
    ),
]


def comparison() -> list[dict[str, object]]:
    """Each published speed or step, what is expected of it, and the ratio of speeds."""
    rows: list[dict[str, object]] = []
    for point in PUBLISHED:
        name = f"{point.source}, {point.model.split('/')[1]}, {point.context:,} tokens"
        ratio = point.expected / point.tokens_per_second
        published = f"{point.tokens_per_second:.1f} tokens/s"
        rows.append({"what": name, "gpus": f"{point.gpus} × {point.gpu}", "published": published})
        rows[-1] |= {"expected": f"{point.expected:.1f}", "ratio": round(ratio, 2)}
    for step in PUBLISHED_STEPS:
        rows.append(
            {"what": step.source, "gpus": f"{step.gpus} × h100-80", "published": f"{step.seconds:.0f} s a step"}
        )
        rows[-1] |= {"expected": f"{step.expected:.0f}", "ratio": round(step.seconds / step.expected, 2)}
    return rows


def comparison_lines() -> list[str]:
    """The same as lines of Markdown."""
    head = ["| | GPUs | published | expected | ratio of speeds |", "|---|---|---|---|---|"]
    return head + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in comparison()]


PLACEMENTS = {
    "2 nodes, taking turns": (
        "cluster.nodes=2",
        "cluster.placement=colocated",
        "cluster.mode=sync",
        "cluster.learners=16",
        "cluster.samplers=4",
    ),
    "4 nodes (the preset)": (),
    "4 nodes, as the preset but sync": ("cluster.mode=sync",),
    "4 nodes, taking turns": (
        "cluster.placement=colocated",
        "cluster.mode=sync",
        "cluster.learners=32",
        "cluster.samplers=8",
    ),
    "8 nodes": ("cluster.nodes=8", "cluster.learners=32", "cluster.samplers=8"),
    "4 nodes of H20": ("cluster.gpu=h20-96",),
    "4 nodes of H200": ("cluster.gpu=h200-141",),
}


def placements() -> list[str]:
    """Lines of Markdown: seconds by phase of the 32B preset's step in some placements, by the plan."""
    lines = ["| | rollout | log-probs | update | weights | step |", "|---|---|---|---|---|---|"]
    for name, overrides in PLACEMENTS.items():
        step = make_plan(preset("retool-32b", *overrides)).step
        assert step
        phases = {phase.name: phase.seconds for phase in step.phases}
        cells = [phases["rollout"], phases["log-probs"], phases["update"], phases["weights"], step.seconds]
        lines.append(f"| {name} | " + " | ".join(f"{seconds:,.0f}" for seconds in cells) + " |")
    return lines
