"""The lean forward pass against transformers' own, and when it is not taken."""

from __future__ import annotations

import asyncio

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.llama import modeling_llama

from retool.config.sampling import SamplingConfig
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams, Segment
from retool.sampling.scheduler import Row

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "llama": {},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "llama with wide heads": {"head_dim": 16},
    "llama with one key head, gelu and a large epsilon": {
        "num_key_value_heads": 1,
        "hidden_act": "gelu",
        "rms_norm_eps": 0.1,
    },
    "llama with tied embeddings": {"tie_word_embeddings": True},
    "llama with linear positions": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "llama with dynamic positions": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "llama with YaRN": {"rope_parameters": YARN},
    "llama with positions of Llama 3": {"rope_parameters": LLAMA3},
    "mistral": {"sliding_window": 9},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}


def make_model(model_type: str, **extra: object) -> PreTrainedModel:
    """With weights large enough for every part to matter, norms and biases among them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **extra})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model


def segment_of(engine: Engine, tokens: int = 30) -> Segment:
    params = SamplingParams(SamplingConfig(), tokens, frozenset())
    return asyncio.run(engine.extend(None, PROMPT, params, lambda _: False, 1))


def plain_logprobs(model: PreTrainedModel, segment: Segment) -> list[float]:
    with torch.inference_mode():
        logits = model(torch.tensor([[*PROMPT, *segment.ids]]), use_cache=False).logits[0, len(PROMPT) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(segment.ids)[:, None]).squeeze(-1).tolist()


def says_what_the_model_says(engine: Engine) -> bool:
    segment = segment_of(engine)
    engine.release(segment.handle)
    return segment.logprobs == pytest.approx(plain_logprobs(engine.model, segment), abs=2e-5)


PROMPT = [(5 * n + 3) % VOCABULARY for n in range(21)]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_taken_for_llamas_and_says_what_the_model_says(name: str) -> None:
    engine = Engine(make_model(name.split()[0], **MODELS[name]), rows=2, capacity=60, prefill_chunk=8)
    assert engine._runner.lean.is_exact
    assert says_what_the_model_says(engine)


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_several_lengths_are_read_at_once(name: str) -> None:
    model = make_model(name.split()[0], **MODELS[name])
    engine = Engine(model, rows=3, capacity=40)
    ids = [[(7 * row + n) % VOCABULARY for n in range(12)] for row in range(3)]
    rows = [Row(index=n) for n in range(3)]
    for row, text, length in zip(rows, ids, (2, 5, 8), strict=True):
        engine._runner.read([row], [text[:length]])
    logits = engine._runner.read(rows, [text[row.length : row.length + 4] for row, text in zip(rows, ids, strict=True)])
    for row, text, ours in zip(rows, ids, logits, strict=True):
        plain = model(torch.tensor([text[: row.length]]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "model_type", ["gemma2", "gemma3_text", "olmo2", "smollm3", "mixtral", "granite", "phi", "gpt2"]
)
def test_other_architectures_are_left_to_transformers(model_type: str) -> None:
    sizes = {k: v for k, v in SIZES.items() if model_type != "gpt2" or k != "num_key_value_heads"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).eval()
    assert not Engine(model, rows=1, capacity=40)._runner.lean.is_exact


def test_a_model_in_bf16_is_left_to_transformers() -> None:
    assert not Engine(make_model("llama").to(torch.bfloat16), rows=1, capacity=40)._runner.lean.is_exact


def test_a_class_of_ones_own_is_left_to_itself() -> None:
    class Louder(modeling_llama.LlamaForCausalLM):
        def forward(self, *args: object, **kwargs: object) -> object:
            output = super().forward(*args, **kwargs)
            output.logits *= 2
            return output

    model = Louder(AutoConfig.for_model("llama", **SIZES)).eval()
    engine = Engine(model, rows=1, capacity=60)
    assert not engine._runner.lean.is_exact
    assert says_what_the_model_says(engine)


def test_a_llama_that_was_patched_to_compute_something_else_is_found_by_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(modeling_llama, "rotate_half", lambda x: x.flip(-1))
    engine = Engine(make_model("llama"), rows=1, capacity=60)
    assert not engine._runner.lean.is_exact
    assert says_what_the_model_says(engine)


@pytest.mark.parametrize("part", ["", "model", "model.norm", "model.layers.1", "model.layers.1.self_attn"])
def test_hooks_on_what_it_passes_over_run_though_they_came_later(part: str) -> None:
    model = make_model("llama")
    engine = Engine(model, rows=1, capacity=60)
    calls = []
    handle = model.get_submodule(part).register_forward_hook(lambda *_: calls.append(part))
    segment_of(engine)
    assert calls and not engine._runner.lean.is_exact
    handle.remove()
    calls.clear()
    engine = Engine(model, rows=1, capacity=60)
    segment_of(engine)
    assert not calls and engine._runner.lean.is_exact


class LargerNorm(modeling_llama.LlamaRMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 1.5 * super().forward(hidden_states)


@pytest.mark.parametrize("how", ["module", "forward"])
def test_what_takes_the_place_of_something_it_passes_over_is_called(how: str) -> None:
    model = make_model("llama")
    engine = Engine(model, rows=1, capacity=60)
    larger = LargerNorm(SIZES["hidden_size"])
    if how == "module":
        model.model.layers[1].input_layernorm = larger
    else:
        model.model.layers[1].input_layernorm.forward = larger.forward
    assert says_what_the_model_says(engine)
    assert not engine._runner.lean.is_exact


class Adapter(nn.Module):
    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def test_adapters_that_came_later_and_hooks_on_projections_and_the_head_count() -> None:
    model = make_model("qwen3")
    engine = Engine(model, rows=1, capacity=60)
    attention, mlp = model.model.layers[2].self_attn, model.model.layers[0].mlp
    attention.q_proj, mlp.up_proj = Adapter(attention.q_proj), Adapter(mlp.up_proj)
    attention.o_proj.register_forward_hook(lambda _module, _inputs, out: 2 * out)
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits[..., :50])
    assert says_what_the_model_says(engine)
    assert engine._runner.lean.is_exact and max(segment_of(engine).ids) < 50


def test_weights_that_were_trained_or_loaded_are_the_ones_that_count() -> None:
    model, other = make_model("qwen2"), make_model("qwen2")
    engine = Engine(model, rows=1, capacity=60)
    with torch.no_grad():
        for parameter in [*model.parameters(), *other.parameters()]:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert says_what_the_model_says(engine)
    for assign in (False, True):
        model.load_state_dict(other.state_dict(), assign=assign)
        asyncio.run(engine.update(1))
        assert says_what_the_model_says(engine)
    assert engine._runner.lean.is_exact
