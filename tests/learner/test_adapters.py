"""Low-rank adapters: they alone learn, everything else works as before, and what is saved is a plain model."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from retool.config.sampling import SamplingConfig
from retool.config.schema import LoraConfig, SftConfig
from retool.errors import UsageError
from retool.learner.adapters import (
    add_adapters,
    has_adapters,
    merged_parameters,
    merged_state_dict,
    without_adapters,
)
from retool.learner.compatibility import check_learnable
from retool.learner.logprobs import score
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example, make_batch
from retool.learner.sft import sft_step
from retool.learner.trained import Trained
from retool.sampling.engine import Engine
from retool.sampling.sampler import SamplingParams

EXAMPLES = [Example([9, n, 20 + n, 30 + n, 5], [False, False, True, False, True]) for n in range(6)]
IDS = torch.tensor([[9, 1, 2, 3, 4, 5]])


def train(model: PreTrainedModel, optimizer: Optimizer | None = None, steps: int = 5) -> Optimizer:
    optimizer = optimizer or Optimizer(model, SftConfig(learning_rate=1e-2), 100)
    for _ in range(steps):
        sft_step(model, optimizer, EXAMPLES, 12)
    model.eval()
    return optimizer


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(IDS).logits


def adapters(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def greedy(model: PreTrainedModel) -> list[int]:
    async def main() -> list[int]:
        engine = Engine(model.eval(), rows=1, capacity=40)
        params = SamplingParams(SamplingConfig(temperature=0.0), 20, frozenset())
        return (await engine.extend(None, [9, 1], params, lambda _: False, 0)).ids

    return asyncio.run(main())


class TestWithPeft:
    @pytest.fixture
    def make_adapted(self, model: PreTrainedModel) -> Callable[..., PreTrainedModel]:
        pytest.importorskip("peft")

        def make(seed: int = 0, dtype: torch.dtype = torch.float32, **settings: object) -> PreTrainedModel:
            adapted = copy.deepcopy(model).to(dtype)
            add_adapters(adapted, LoraConfig(**{"rank": 4, **settings}), seed)
            return adapted

        return make

    def test_new_adapters_change_nothing_and_only_they_learn(
        self, model: PreTrainedModel, make_adapted: Callable
    ) -> None:
        adapted = make_adapted()
        assert has_adapters(adapted) and not has_adapters(model)
        assert torch.equal(logits(adapted), logits(model.eval()))
        before = copied(adapted.state_dict())
        train(adapted)
        changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == set(adapters(adapted))
        assert len(changed) == 2 * 2 * 7  # A and B of seven projections in two layers

    @pytest.mark.parametrize("name", ["adamw", "muon"])
    def test_they_lower_the_loss(self, make_adapted: Callable, name: str) -> None:
        adapted = make_adapted()
        optimizer = Optimizer(adapted, SftConfig(optimizer=name, learning_rate=1e-2), 30)
        losses = [sft_step(adapted, optimizer, EXAMPLES, 1000)["loss"] for _ in range(30)]
        assert losses[-1] < losses[0] - 0.3

    def test_targets_name_the_layers(self, make_adapted: Callable) -> None:
        adapted = make_adapted(targets=("q_proj", "v_proj"))
        assert {name.split(".")[4] for name in adapters(adapted)} == {"q_proj", "v_proj"}

    @pytest.mark.parametrize(
        ("targets", "found"), [("nowhere", "nowhere"), (("embed_tokens",), "embed_tokens"), (("lm_head",), "head")]
    )
    def test_targets_that_cannot_be_are_refused(self, make_adapted: Callable, targets: object, found: str) -> None:
        with pytest.raises(UsageError, match=f"(?s)model.lora.targets=.*{found}"):
            make_adapted(targets=targets)

    def test_switched_off_they_leave_the_model_that_was(self, model: PreTrainedModel, make_adapted: Callable) -> None:
        adapted = make_adapted()
        optimizer = train(adapted)
        learned = logits(adapted)
        with without_adapters(adapted):
            assert torch.equal(logits(adapted), logits(model.eval()))
        assert torch.equal(logits(adapted), learned)
        assert not torch.equal(learned, logits(model))
        train(adapted, optimizer)
        assert not torch.equal(logits(adapted), learned)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_checkpoint_is_a_plain_model_that_says_the_same(
        self, make_adapted: Callable, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        adapted = make_adapted(dtype=dtype)
        train(adapted)
        before = copied(adapted.state_dict())
        adapted.save_pretrained(tmp_path, state_dict=merged_state_dict(adapted))
        torch.testing.assert_close(dict(adapted.state_dict()), before, rtol=0, atol=0)
        plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
        assert not any(info.values())
        atol = 1e-5 if dtype is torch.float32 else 2e-2
        torch.testing.assert_close(logits(plain), logits(adapted), rtol=0, atol=atol)
        parameters = dict(plain.named_parameters())
        torch.testing.assert_close(dict(merged_parameters(adapted)), parameters, rtol=0, atol=0)

    def test_weights_that_are_held_transposed_are_merged_so(self, make_adapted: Callable) -> None:
        config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=1, n_head=2, eos_token_id=0)
        config.bos_token_id = None
        model = AutoModelForCausalLM.from_config(config).eval()
        plain = copy.deepcopy(model)
        with pytest.warns(UserWarning, match="fan_in_fan_out"):
            add_adapters(model, LoraConfig(rank=4), 0)
        with torch.no_grad():
            for name, value in adapters(model).items():
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
        plain.load_state_dict(merged_state_dict(model))
        torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_resume_goes_on_to_the_same_bits(
        self, make_adapted: Callable, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        whole = make_adapted(dtype=dtype)
        optimizer = train(whole)
        Trained(whole, optimizer, dtype).save_rest(tmp_path)
        train(whole, optimizer)

        resumed = make_adapted(seed=1, dtype=dtype)
        continued = Optimizer(resumed, SftConfig(learning_rate=1e-2), 100)
        Trained(resumed, continued, dtype).load_rest(tmp_path)
        train(resumed, continued)
        torch.testing.assert_close(adapters(resumed), adapters(whole), rtol=0, atol=0)

    def test_the_seed_decides_how_they_start(self, make_adapted: Callable) -> None:
        first, again, other = (adapters(make_adapted(seed=seed)) for seed in (0, 0, 1))
        torch.testing.assert_close(first, again, rtol=0, atol=0)
        assert any(not torch.equal(value, other[name]) for name, value in first.items())

    def test_adapters_of_another_shape_are_not_loaded(self, make_adapted: Callable, tmp_path: Path) -> None:
        found = []
        for rank in (8, 4):
            adapted = make_adapted(rank=rank)
            found.append(Trained(adapted, Optimizer(adapted, SftConfig(), 1), torch.float32))
        found[0].save_rest(tmp_path)
        with pytest.raises(UsageError, match=r"is \[8, 64\] there, and \[4, 64\] here\); go on with the settings"):
            found[1].load_rest(tmp_path)

    def test_the_learner_can_train_it_with_and_without_recomputed_activations(self, make_adapted: Callable) -> None:
        gradients = []
        for recompute in (False, True):
            adapted = make_adapted()
            check_learnable(adapted)
            if recompute:
                adapted.gradient_checkpointing_enable()
            score(adapted.train(), make_batch(EXAMPLES, [0, 1, 2], torch.device("cpu"))).logprobs_N.sum().backward()
            gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
        torch.testing.assert_close(*gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients[0].values())

    def test_the_engine_samples_with_adapters_what_it_samples_from_the_merged_model(
        self, model: PreTrainedModel, make_adapted: Callable
    ) -> None:
        adapted = make_adapted()
        train(adapted)
        plain = copy.deepcopy(model)
        plain.load_state_dict(merged_state_dict(adapted))
        assert greedy(adapted) == greedy(plain) != greedy(model)


def test_a_model_without_adapters_is_its_own_merged_model(model: PreTrainedModel) -> None:
    torch.testing.assert_close(merged_state_dict(model), dict(model.state_dict()), rtol=0, atol=0)
    assert not has_adapters(model)


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"peft: pip install 'retool\[lora\]'"):
        add_adapters(model, LoraConfig(rank=4), 0)
