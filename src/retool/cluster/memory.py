"""Bytes of each kind of process, one item a purpose, each with its formula.

Letters: P parameters, T tokens of a row, L layers, D hidden size, I of the MLP, H·d and K·d of queries and of keys, V
ids, n learners, t GPUs of a sampler, b bytes of a weight as it computes (`model.dtype`).
"""

from __future__ import annotations

from dataclasses import dataclass

from retool.cluster.hardware import GIB, Hardware
from retool.cluster.shape import ModelShape
from retool.config.base import chosen
from retool.config.cluster import ClusterConfig
from retool.config.schema import Config

PROMPT_TOKENS = 1024
"""Room for a prompt: problems are not read for a plan."""

_MIB = 1 << 20
_CUDA = 2 * GIB  # context, NCCL's and cuBLAS' buffers
_FRAGMENTED = 0.05  # of a GPU's memory, which the allocator cannot hand out
_VLLM_SHARE = 0.9  # of a GPU's memory, vLLM's gpu_memory_utilization
_VLLM_GRAPHS = 2 * GIB  # CUDA graphs and workspaces beside the context
_LINE = 64  # bytes, of which a row of the engine's cache fills whole ones; vLLM's is in blocks of 16 tokens
_PREFILL_TOKENS = 8192  # that vLLM reads in one step
_TILE_ELEMENTS, _NARROWEST_TILE = {"cpu": 1 << 22}, 1024  # of the output head, as in kernels.token_logprobs
_TILE_ELEMENTS_ELSEWHERE = 1 << 26
_PROCESS, _PROCESS_WITH_GPU = GIB // 2, 2 * GIB  # main memory of a Python process with torch, before it holds anything
_INTERPRETERS = GIB  # of a sandbox before it runs anything: zygotes with NumPy and SymPy


@dataclass(frozen=True, slots=True)
class Item:
    """`size` bytes for a purpose, and the formula that they come from."""

    name: str
    size: int
    formula: str


def total(items: list[Item]) -> int:
    return sum(item.size for item in items)


def row_tokens(config: Config) -> int:
    """Tokens of the longest row of a forward pass: micro-batches are whole trajectories."""
    return max(config.rl.micro_batch_tokens, longest(config))


def longest(config: Config) -> int:
    """Tokens of the longest trajectory, prompt included."""
    return PROMPT_TOKENS + config.rollout.max_tokens


def needs_critic(config: Config) -> bool:
    advantage = config.rl.advantage
    return config.rl.algorithm == "ppo" if advantage is None else "gae" in chosen(advantage)


def width(config: Config) -> int:
    """b: bytes of a weight in forward and backward passes."""
    return 2 if config.model.dtype == "bfloat16" else 4


def sampler_count(config: Config) -> int:
    """Those of the cluster, or the servers that are there already."""
    return len(config.sampler.urls) or _cluster(config).samplers


# A learner


def held_by_learner(shape: ModelShape, config: Config) -> list[Item]:
    """What stays on a learner's GPU between passes.

    Alone it holds weights of b bytes and, where b is 2, masters in fp32. Of several each holds 1/n of all, in fp32.
    """
    n, b = _learners(config), width(config)
    sharded, lora = n > 1, config.model.lora
    each, share = (4, f"4 · P / {n}") if sharded else (b, f"{b} · P")
    trained = shape.adapter_parameters(lora) if lora.rank else shape.parameters
    letter = "adapters" if lora.rank else "P"
    weights = (shape.parameters + (trained if lora.rank else 0)) * each // n
    items = [
        Item("weights", weights, share + (" + adapters" if lora.rank else "")),
        _optimizer(shape, config, trained, letter, masters=not sharded and b < 4),
    ]
    if needs_critic(config):
        items.append(_critic(shape, config))
    if config.rl.kl and not lora.rank:
        items.append(Item("reference", shape.parameters * each // n, share))
    return items


def _optimizer(shape: ModelShape, config: Config, trained: int, letter: str, masters: bool) -> Item:
    """Moments in fp32: two with AdamW, one with Muon for the matrices of the trunk; masters in fp32 beside bf16."""
    n = _learners(config)
    orthogonal = 0
    if config.rl.optimizer == "muon":
        orthogonal = trained if config.model.lora.rank else shape.layers * shape.layer_matrices
    size = 8 * (trained - orthogonal) + 4 * orthogonal + (4 * trained if masters else 0)
    formula = f"{8 + 4 * masters} · {letter}"
    if orthogonal:
        formula = f"({formula} − 4 · matrices)"
    return Item("optimizer", size // n, formula + (f" / {n}" if n > 1 else ""))


def _critic(shape: ModelShape, config: Config) -> Item:
    """Weights, gradients and AdamW's moments in fp32 of a head, D² + 2D + 1, and of the trunk if it has its own."""
    n, head = _learners(config), shape.hidden**2 + 2 * shape.hidden + 1
    own = config.rl.critic.trunk == "own"
    size = 16 * (head + (shape.trunk_parameters if own else 0))
    return Item("critic", size // n, ("16 · (trunk + head)" if own else "16 · (D² + 2D + 1)") + f" / {n}" * (n > 1))


def passes_of_learner(shape: ModelShape, config: Config) -> list[Item]:
    """What a learner holds besides while it learns."""
    n, lora = _learners(config), config.model.lora
    trained = shape.adapter_parameters(lora) if lora.rank else shape.parameters
    gradients = Item("gradients", 4 * trained // n, f"4 · {'adapters' if lora.rank else 'P'}" + f" / {n}" * (n > 1))
    gathered = [_gathered(shape, config)] if n > 1 else []
    passing = [*gathered, _activations(shape, config), _head(shape, config)]
    after = 10 * shape.root_parameters if n > 1 and not lora.rank else 4 * trained
    if total(passing) < after:
        of = "(b + b + 4) · embedding and head" if n > 1 else "4 · P, which AdamW holds in its step"
        passing.append(Item("after the passes", after - total(passing), f"beyond them: {of}"))
    return [gradients, *passing]


def _gathered(shape: ModelShape, config: Config) -> Item:
    """FSDP2 gathers embedding and head for the whole pass, and two layers at a time; of a layer's gradients there are
    two in b bytes and one in fp32 on its way to the others."""
    b = width(config)
    size = b * (shape.root_parameters + shape.embedding) + (4 * b + 4) * shape.layer_parameters
    if needs_critic(config) and config.rl.critic.trunk == "own":
        size += b * shape.embedding
    return Item("gathered", size, f"{b} · (embedding, head and its gradient) + {4 * b + 4} · a layer's parameters")


def activation_bytes(shape: ModelShape, b: int) -> int:
    """Of one token in one layer, as transformers' modules keep them for the backward pass.

    Each norm keeps its input in fp32, what is scaled and the result, 4D + 2bD; attention its queries, keys, values and
    output, b(2Hd + 2Kd); the MLP gate, activation, up and their product, 4bI. Norms over heads keep 4 + b bytes of what
    they normalize.
    """
    norms = 2 * (4 + 2 * b) * shape.hidden
    attention = 2 * b * (shape.attention_width + shape.kv_width)
    heads = (4 + b) * (shape.attention_width + shape.kv_width) if shape.head_norms else 0
    return norms + attention + heads + 4 * b * shape.intermediate


def _activations(shape: ModelShape, config: Config) -> Item:
    """Of all layers, or with gradient checkpointing their inputs and all of one; and the gradients of a layer's widest
    parts, 3bI + 8D, of which backward holds one layer's. A critic's own trunk keeps as many."""
    b, tokens = width(config), row_tokens(config)
    layer = activation_bytes(shape, b)
    flowing = 3 * b * shape.intermediate + 8 * shape.hidden
    if config.model.gradient_checkpointing:
        kept, one = b * shape.layers * shape.hidden, layer + flowing
        formula = f"T · ({b} · L · D + a layer's {one / 1024:.0f} KiB)"
    else:
        kept, one = layer * shape.layers, flowing
        formula = f"T · (L · {layer / 1024:.0f} KiB + {one / 1024:.0f} KiB)"
    if needs_critic(config) and config.rl.critic.trunk == "own":
        kept, formula = 2 * kept, formula.replace("L ·", "2L ·")
    return Item("activations", tokens * (kept + one), f"{formula}, T = {tokens:,}")


def _head(shape: ModelShape, config: Config) -> Item:
    """States that are scored, twice in b bytes, and their gradient in fp32; of the logits one tile of the vocabulary in
    b bytes and twice in fp32. [T, V] is never held."""
    b, tokens = width(config), row_tokens(config)
    tile = max(_TILE_ELEMENTS.get(_cluster(config).gpu, _TILE_ELEMENTS_ELSEWHERE), _NARROWEST_TILE * tokens)
    size = tokens * shape.hidden * (2 * b + 4) + tile * (b + 8)
    return Item("output head", size, f"T · D · {2 * b + 4} + a tile of {tile / 1e6:.0f} M logits · {b + 8}")


# A sampler


def held_by_sampler(shape: ModelShape, config: Config) -> list[Item]:
    """What each GPU of a sampler holds beside the KV cache."""
    cluster, b = _cluster(config), width(config)
    t = cluster.tensor_parallel
    items = [Item("weights", b * shape.parameters // t, f"{b} · P / {t}" if t > 1 else f"{b} · P")]
    if config.sampler.backend == "engine":
        return items
    buffer = b * shape.embedding
    reading = b * _PREFILL_TOKENS * (2 * shape.intermediate // t + 4 * shape.hidden)
    logits = 8 * config.rollout.rows * shape.vocabulary
    return [
        *items,
        Item("incoming weights", buffer, f"{b} · V · D, the largest tensor"),
        Item("prefill and logits", reading + logits, f"{b} · {_PREFILL_TOKENS} · (2I / {t} + 4D) + 8 · rows · V"),
        Item("graphs", _VLLM_GRAPHS, "CUDA graphs and workspaces, an allowance"),
    ]


def kv_token_bytes(shape: ModelShape, config: Config) -> int:
    """Of one token on each GPU of a sampler: b · 2 · L · K · d / t; fewer heads than GPUs are held more than once."""
    return width(config) * shape.kv_elements // min(_cluster(config).tensor_parallel, shape.kv_heads)


def kv_cache(shape: ModelShape, config: Config, room: int) -> tuple[Item, int]:
    """What all rows take at full length, or else the room that there is; and how many of them it holds."""
    in_a_line = _LINE // width(config)
    tokens = (longest(config) // in_a_line + 1) * in_a_line
    row = kv_token_bytes(shape, config) * tokens
    rows = min(config.rollout.rows, max(0, room) // row)
    size = min(config.rollout.rows * row, max(0, room))
    return Item("KV cache", size, f"{row / tokens / 1024:.0f} KiB a token · {tokens:,} tokens · {rows} rows"), rows


def room_for_cache(shape: ModelShape, config: Config, hardware: Hardware) -> int:
    """Bytes for the KV cache on each GPU of a sampler; without GPUs, of the process."""
    if hardware.gpu is None:  # the engine allocates its rows at once, and processes share the node's memory
        return config.rollout.cache_mib * _MIB if config.rollout.cache_mib else hardware.node_memory
    return room_on_gpu(shape, config, hardware.gpu.memory)


def room_on_gpu(shape: ModelShape, config: Config, memory: int) -> int:
    """Of the `memory` of a sampler's GPU, what is left for the KV cache."""
    held = total(held_by_sampler(shape, config))
    if _cluster(config).placement == "apart":
        return usable(memory, "sampler") - held
    learner = held_by_learner(shape, config)
    if keeps_memory(config):
        learner += passes_of_learner(shape, config)
    return usable(memory, "learner") - asleep() - total(learner) - held


# Around them


def usable(memory: int, process: str) -> int:
    """What a process may plan with of a GPU's memory."""
    if process == "sampler":
        return int(_VLLM_SHARE * memory)
    return int((1 - _FRAGMENTED) * memory) - _CUDA


def keeps_memory(config: Config) -> bool:
    """Does a sampler that takes turns with a learner hold its weights and its cache while that one learns? vLLM gives
    them back; the engine does not, and what torch has once taken for a pass the learner keeps."""
    return config.sampler.backend == "engine"


def asleep() -> int:
    """What the other process takes of a GPU that two of them share, while it does nothing: its context."""
    return _CUDA


def sandbox_workers(config: Config, hardware: Hardware) -> int:
    """Executions at the same time on one node."""
    return config.sandbox.workers or max(2, hardware.node_cores // 2)


def main_memory(
    shape: ModelShape, config: Config, hardware: Hardware, *, learners: int, samplers: int, writer: bool, sandbox: bool
) -> list[Item]:
    """Of a node with some learners and samplers of GPUs on it. `writer`: the learner that writes checkpoints is."""
    b, process = width(config), _PROCESS_WITH_GPU if hardware.gpu else _PROCESS
    items = []
    if learners:
        items.append(_loading(shape, config, learners, process))
    if writer:
        items.append(Item("a checkpoint before it is written", b * shape.parameters, f"{b} · P"))
    if samplers:
        items.append(Item("samplers and their agents", samplers * 2 * process, f"{2 * samplers} · {process / GIB} GiB"))
        if config.sampler.backend == "vllm":
            items.append(Item("weights to hand over", samplers * b * shape.parameters, f"{samplers} · {b} · P"))
    if (samplers or writer) and transport(_cluster(config), hardware) != "files":
        items.append(Item("weights on their way", 2 * b * shape.parameters, f"two versions · {b} · P"))
    if sandbox:
        items.append(_sandbox(config, hardware))
    return items


def _loading(shape: ModelShape, config: Config, learners: int, process: int) -> Item:
    """Each learner reads whole models before it keeps its shards of them on the GPU."""
    b = width(config)
    size, formula = b * shape.parameters + process, f"{b} · P"
    if needs_critic(config) and config.rl.critic.trunk == "own":
        size, formula = size + 4 * shape.trunk_parameters, formula + " + 4 · trunk"
    if config.rl.kl and not config.model.lora.rank:
        size, formula = size + b * shape.parameters, formula + f" + {b} · P"
    return Item("learners while they load", learners * size, f"{learners} · ({formula} + {process / GIB} GiB)")


def _sandbox(config: Config, hardware: Hardware) -> Item:
    """All executions, and all open sessions, at the limit of what each may use."""
    workers = sandbox_workers(config, hardware)
    sessions = config.sandbox.sessions if config.rollout.stateful else 0
    size = (workers + sessions) * config.sandbox.memory_mib * _MIB + _INTERPRETERS
    formula = f"{workers + sessions} · {config.sandbox.memory_mib} MiB + 1 GiB"
    return Item("sandbox at its limits", size, formula)


def transport(cluster: ClusterConfig, hardware: Hardware) -> str:
    """How weights travel where `cluster.weights` leaves it open."""
    if cluster.weights != "auto":
        return cluster.weights
    return "nccl" if hardware.gpu else "shared_memory"


def _cluster(config: Config) -> ClusterConfig:
    assert config.cluster is not None, "a plan is made for configs with the section cluster"
    return config.cluster


def _learners(config: Config) -> int:
    return _cluster(config).learners
