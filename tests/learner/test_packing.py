"""Sequences in one row are what they are apart: scores, gradients, and who is put together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from retool.errors import UsageError
from retool.kernels import attention as kernels_attention
from retool.learner import attention
from retool.learner.compatibility import check_learnable
from retool.learner.logprobs import score
from retool.learner.packing import Example, make_batch, pack
from small_models import make_model

WINDOWED = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8}
MODELS = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 7},
    "gemma3_text": WINDOWED,
    "gemma2": {**WINDOWED, "attn_logit_softcapping": 0.02, "final_logit_softcapping": 0.1},
    "gpt_oss": {**WINDOWED, "num_local_experts": 4},
    "cohere": {"logit_scale": 0.5},
    "granite": {"logits_scaling": 3.0},
}
CPU = torch.device("cpu")


def examples_of(lengths: list[int], seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(97, (length,), generator=generator).tolist() for length in lengths]
    return [Example(part, [t % 3 > 0 for t in range(len(part))]) for part in ids]


def apart(model: PreTrainedModel, example: Example) -> torch.Tensor:
    """Log-probabilities of the targets by a plain forward pass over this sequence alone."""
    ids = torch.tensor(example.ids)
    targets = [t for t in range(1, len(example)) if example.mask[t]]
    logprobs = model(ids[None], use_cache=False).logits[0].log_softmax(-1)
    return logprobs[[t - 1 for t in targets], ids[targets]]


def gradients(model: PreTrainedModel, logprobs: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def take_as_long(length: int, patch: pytest.MonkeyPatch) -> None:
    """Sequences from this length on go through the kernel for long ones."""
    patch.setattr(kernels_attention, "_LEAST_SIZE", 1)
    patch.setattr(kernels_attention, "_LEAST_QUERIES", 1)
    patch.setattr(kernels_attention, "_LEAST_LENGTH", length)


@pytest.fixture(scope="module", params=MODELS)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return make_model(request.param, **MODELS[request.param])


@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), block=st.sampled_from([5, 256]), long=st.booleans()
)
def test_scores_and_gradients_are_those_of_the_sequences_apart(
    any_model: PreTrainedModel, lengths: list[int], block: int, long: bool
) -> None:
    examples = examples_of(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK", block)
        if long:
            take_as_long(20, patch)
        ours = score(any_model, make_batch(examples, range(len(examples)), CPU)).logprobs_N
        our_gradients = gradients(any_model, ours)
    expected = torch.cat([apart(any_model, example) for example in examples])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_gradients, gradients(any_model, expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("window", "lengths", "taken"),
    [
        (None, [30, 25, 20, 9], [30, 25, 20]),
        (None, [30, 20], [30, 20]),
        (None, [9, 30], []),  # only those that lie first
        (25, [30, 20], []),
    ],
)
def test_long_sequences_go_through_the_kernel_for_them(
    window: int | None, lengths: list[int], taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_as_long(20, monkeypatch)
    calls = []
    real = kernels_attention.causal_attention
    monkeypatch.setattr(attention, "causal_attention", lambda *inputs: calls.append(inputs[3]) or real(*inputs))
    batch = make_batch(examples_of(lengths), range(len(lengths)), CPU)
    score(make_model("mistral", sliding_window=window), batch)
    assert calls == ([taken] * 2 if taken else [])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_layers_that_are_run_again_in_the_backward_pass_keep_the_sequences_apart(
    model_type: str, reentrant: bool
) -> None:
    model, examples = make_model(model_type, **MODELS[model_type]), examples_of([20, 9, 30])
    expected = gradients(model, torch.cat([apart(model, example) for example in examples]))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    first = score(model, make_batch(examples, [0, 1], CPU)).logprobs_N
    second = score(model, make_batch(examples, [2], CPU)).logprobs_N  # another row before the first one's backward pass
    found = gradients(model, torch.cat([first, second]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_outside_of_scoring_the_model_is_as_it_was() -> None:
    model, ids = make_model("llama"), torch.arange(20)[None]
    before = model.config._attn_implementation
    plain = model(ids).logits
    score(model, make_batch(examples_of([5, 6]), [0, 1], CPU))
    assert model.config._attn_implementation == before
    torch.testing.assert_close(model(ids).logits, plain, atol=0, rtol=0)


@pytest.mark.parametrize(("model_type", "extra"), [*MODELS.items(), ("gpt2", {}), ("mixtral", {})])
def test_these_models_can_be_learned(model_type: str, extra: dict) -> None:
    sizes = {"num_key_value_heads": None} if model_type == "gpt2" else {}
    check_learnable(make_model(model_type, **extra, **sizes))


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("mamba", {}),
        ("mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1}),
        ("qwen3_next", {}),
        ("recurrent_gemma", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("bloom", {"num_key_value_heads": None}),  # positions by distance, which its attention does not hand over
        ("rwkv", {}),
    ],
)
def test_models_that_would_mix_the_sequences_are_refused(model_type: str, extra: dict) -> None:
    with pytest.raises(UsageError, match=f"end to end, and model type '{model_type}' does not work so"):
        check_learnable(make_model(model_type, **extra))


def test_a_model_that_does_something_unknown_to_its_logits_is_refused() -> None:
    model = make_model("llama")
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: 2 * logits)
    with pytest.raises(UsageError, match="differs by a share"):
        check_learnable(model)


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 200))
def test_packs_hold_each_sequence_once_within_the_budget(lengths: list[int], budget: int) -> None:
    packs = pack(lengths, budget)
    assert sorted(index for group in packs for index in group) == list(range(len(lengths)))
    for group in packs:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
        assert [lengths[i] for i in group] == sorted((lengths[i] for i in group), reverse=True)
    within = [group for group in packs if sum(lengths[i] for i in group) <= budget]
    loads = [sum(lengths[i] for i in group) for group in within]
    assert all(a + b > budget for n, a in enumerate(loads) for b in loads[n + 1 :])  # no two would fit into one


def test_a_batch_says_what_is_to_be_predicted() -> None:
    examples = [Example([5, 6, 7], [True, False, True]), Example([8], [True]), Example([9, 10], [False, True])]
    batch = make_batch(examples, [2, 0, 1], CPU)
    assert batch.ids_1T.tolist() == [[9, 10, 5, 6, 7, 8]]
    assert batch.positions_1T.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert batch.lengths_B.tolist() == [2, 3, 1]
    assert batch.targets_T.tolist() == [False, True, False, False, True, False]  # a first token has nothing before it
    assert batch.model_lengths_B.tolist() == [1, 1, 0]
