"""The formulas of a plan, held against the models, optimizers and caches that they speak of."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from retool.cluster.advice import changed
from retool.cluster.memory import (
    activation_bytes,
    held_by_learner,
    kv_cache,
    kv_token_bytes,
    longest,
    passes_of_learner,
)
from retool.cluster.shape import ModelShape, find_shape
from retool.config.load import load_config
from retool.config.schema import Config, LoraConfig, ModelConfig
from retool.errors import UsageError
from retool.learner.adapters import add_adapters
from retool.learner.critic import Critic
from retool.learner.distributed import Processes
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Batch, Example, make_batch
from retool.sampling.cache import RowCache

SIZES: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
FAMILIES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "head_dim": 24},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
}
TOKENS = 128
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


def config_of(family: str = "qwen2", **settings: Any) -> Config:
    config = load_config(Config, "qwen2.5-7b", ["model.path=null", "model.gradient_checkpointing=false"])
    architecture = SIZES | FAMILIES[family]
    plain = {"model__architecture": architecture, "cluster__learners": 1, "rl__algorithm": "grpo"}
    return changed(config, **plain | settings)


def make_model(config: Config) -> PreTrainedModel:
    values = dict(config.model.architecture or {})
    torch.manual_seed(0)
    made = AutoConfig.for_model(values.pop("model_type"), **values)
    return AutoModelForCausalLM.from_config(made, dtype=getattr(torch, config.model.dtype))


def shape_of(config: Config) -> ModelShape:
    return find_shape(config.model)


def batch(tokens: int = TOKENS) -> Batch:
    examples = [Example(list(range(1, tokens // 2 + 1)), [True] * (tokens // 2)) for _ in range(2)]
    return make_batch(examples, [0, 1], torch.device("cpu"))


def sizes(items: list[Any]) -> dict[str, int]:
    return {item.name: item.size for item in items}


def nbytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_as_transformers_makes_them(family: str) -> None:
    config = config_of(family)
    model, shape = make_model(config), shape_of(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.trunk_parameters == sum(parameter.numel() for parameter in model.base_model.parameters())
    layer = model.base_model.layers[0]
    assert shape.layer_parameters == sum(parameter.numel() for parameter in layer.parameters())
    linear = [module.weight.numel() for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    assert shape.layer_matrices == sum(linear)


@pytest.mark.parametrize(
    ("path", "published"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352),
    ],
)
def test_the_presets_models_have_as_many_parameters_as_is_published(path: str, published: int) -> None:
    assert find_shape(ModelConfig(path=path)).parameters == published


def test_a_model_of_another_kind_is_refused_with_the_kinds_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"types llama, mistral, qwen2, qwen3; .* is of the type 'gpt2'"):
        find_shape(ModelConfig(architecture={"model_type": "gpt2"}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lone_learner_holds_weights_gradients_and_moments_of_this_size(dtype: str, optimizer: str) -> None:
    config = config_of(model__dtype=dtype, rl__optimizer=optimizer)
    model = make_model(config)
    learning = Optimizer(model, config.rl, 10)
    score(model, batch()).logprobs_N.sum().backward()
    gradients = nbytes(parameter.grad for parameter in model.parameters())
    learning.step()
    moments = [m for p in model.parameters() for m in learning.moments(p).values() if m.dim()]
    masters = [learning.learned(p) for p in model.parameters() if learning.learned(p) is not p]

    expected = sizes([*held_by_learner(shape_of(config), config), *passes_of_learner(shape_of(config), config)])
    assert expected["weights"] == nbytes(model.parameters())
    assert expected["gradients"] == gradients
    assert expected["optimizer"] == nbytes(moments) + nbytes(masters)


@needs_peft
def test_adapters_alone_have_gradients_and_moments() -> None:
    config = config_of(model__dtype="bfloat16", model__lora__rank=8)
    model = make_model(config)
    add_adapters(model, LoraConfig(rank=8), 0)
    adapters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = shape_of(config)
    assert shape.adapter_parameters(config.model.lora) == adapters
    expected = sizes([*held_by_learner(shape, config), *passes_of_learner(shape, config)])
    assert expected["weights"] == nbytes(model.parameters())
    assert (expected["gradients"], expected["optimizer"]) == (4 * adapters, 12 * adapters)


@pytest.mark.parametrize("trunk", ["shared", "own"])
def test_a_critic_takes_sixteen_bytes_a_parameter(trunk: str) -> None:
    config = config_of(rl__algorithm="ppo", rl__critic__trunk=trunk)
    critic = Critic(make_model(config), trunk == "own")
    expected = sizes(held_by_learner(shape_of(config), config))["critic"]
    assert expected == 4 * sum(parameter.nbytes for parameter in critic.parameters())


@pytest.fixture
def one_of_two() -> Iterator[Processes]:
    """The first of two processes; what the other would send is made up (torch's own `fake` backend)."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield Processes(0, 2, init_device_mesh("cpu", (2,)))
    distributed.destroy_process_group()


def test_each_of_two_learners_holds_half_of_all_in_fp32(one_of_two: Processes) -> None:
    config = config_of(model__dtype="bfloat16")
    both = changed(config, cluster__learners=2)
    expected = sizes([*held_by_learner(shape_of(both), both), *passes_of_learner(shape_of(both), both)])
    model = make_model(config)
    one_of_two.shard(model)
    learning = Optimizer(model, config.rl, 10)
    score(model, batch()).logprobs_N.sum().backward()
    gradients = nbytes(parameter.grad.to_local() for parameter in model.parameters())
    learning.step()
    moments = [m.to_local() for p in model.parameters() for m in learning.moments(p).values() if m.dim()]
    weights = nbytes(parameter.to_local() for parameter in model.parameters())
    held = {"weights": weights, "gradients": gradients, "optimizer": nbytes(moments)}
    assert held == pytest.approx({name: expected[name] for name in held}, rel=0.01)


def saved_for_backward(model: PreTrainedModel) -> int:
    """Bytes of all that autograd keeps of a pass, parameters apart, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        score(model, batch())
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_layer_keeps_as_many_activations_as_the_formula_says(family: str, dtype: str) -> None:
    """By the difference between models of five layers and of two, which the head and the embedding are no part of."""
    config = config_of(family, model__dtype=dtype)
    kept = []
    for layers in (5, 2):
        architecture = config.model.architecture | {"num_hidden_layers": layers}
        kept.append(saved_for_backward(make_model(changed(config, model__architecture=architecture)).train()))
    expected = TOKENS * activation_bytes(shape_of(config), 4 if dtype == "float32" else 2)
    assert (kept[0] - kept[1]) / 3 == pytest.approx(expected, rel=0.1)


def test_with_gradient_checkpointing_a_layer_keeps_its_input_alone() -> None:
    config = config_of(model__dtype="bfloat16")
    kept = []
    for layers in (5, 2):
        architecture = config.model.architecture | {"num_hidden_layers": layers}
        model = make_model(changed(config, model__architecture=architecture)).train()
        model.gradient_checkpointing_enable()
        kept.append(saved_for_backward(model))
    assert (kept[0] - kept[1]) / 3 == pytest.approx(2 * TOKENS * SIZES["hidden_size"], rel=0.05)


def test_the_kv_cache_is_that_of_the_engine() -> None:
    config = config_of(model__dtype="bfloat16", rollout__max_tokens=64, rollout__rows=3)
    model = make_model(config)
    cache = RowCache(model.config, 3, longest(config), torch.device("cpu"), torch.bfloat16)
    item, rows = kv_cache(shape_of(config), config, 1 << 40)
    assert item.size == cache.keys_LRHSD.nbytes + cache.values_LRHSD.nbytes
    assert rows == 3
    assert kv_cache(shape_of(config), config, item.size - 1)[1] == 2


def test_key_heads_are_shared_out_among_gpus_as_far_as_they_go() -> None:
    config = config_of(model__dtype="bfloat16")
    whole = kv_token_bytes(shape_of(config), config)
    assert whole == 2 * 2 * 3 * 2 * 16  # b · keys and values · layers · key heads · their size
    assert kv_token_bytes(shape_of(config), changed(config, cluster__tensor_parallel=2)) == whole // 2
    assert kv_token_bytes(shape_of(config), changed(config, cluster__tensor_parallel=6)) == whole // 2
