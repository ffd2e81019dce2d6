"""Training in bfloat16: weights of 16 bits that learn through masters of 32."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from retool.config.schema import SftConfig
from retool.learner.optimizer import Optimizer
from retool.learner.packing import Example
from retool.learner.sft import sft_step
from retool.learner.trained import Trained

EXAMPLES = [Example([9, n, 20 + n, 30 + n, 5], [False, False, True, False, True]) for n in range(6)]


@pytest.fixture
def half(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model).bfloat16()


def weights(model: PreTrainedModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def masters(model: PreTrainedModel, optimizer: Optimizer) -> list[torch.Tensor]:
    return [optimizer.learned(parameter).detach().clone() for parameter in model.parameters()]


def share_changed(before: list[torch.Tensor], model: PreTrainedModel) -> float:
    changed = [old != new for old, new in zip(before, model.parameters(), strict=True)]
    return float(torch.cat([part.flatten() for part in changed]).float().mean())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_steps_that_round_to_nothing_add_up(half: PreTrainedModel, name: str) -> None:
    """A step of 1e-6 is far below the last digit of most weights, which are about 0.02 large."""
    optimizer = Optimizer(half, SftConfig(optimizer=name, learning_rate=1e-6), 100)
    before = weights(half)
    sft_step(half, optimizer, EXAMPLES, 1000)
    after_one = share_changed(before, half)
    learned = torch.cat([master.flatten() for master in masters(half, optimizer)])
    assert learned.dtype is torch.float32 and (learned != learned.bfloat16()).float().mean() > 0.3
    for _ in range(49):
        sft_step(half, optimizer, EXAMPLES, 1000)
    assert after_one < 0.1
    assert share_changed(before, half) > 4 * after_one
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_fifty_steps_in_bfloat16_go_the_way_of_fifty_in_float32(
    model: PreTrainedModel, half: PreTrainedModel, name: str
) -> None:
    found = []
    for each in (model, half):
        optimizer = Optimizer(each, SftConfig(optimizer=name, learning_rate=1e-3), 50)
        found.append(torch.tensor([sft_step(each, optimizer, EXAMPLES, 1000)["loss"] for _ in range(50)]))
    plain, rounded = found
    assert plain[-1] < 0.8 * plain[0]
    torch.testing.assert_close(rounded, plain, rtol=0.02, atol=0.01)


def test_gradients_of_micro_batches_add_up_in_float32(half: PreTrainedModel) -> None:
    """256 halves of the last digit: in bfloat16 each of them would be rounded away."""
    Optimizer(half, SftConfig(), 10)
    weight = next(half.parameters())
    for scale in [1.0, *[2.0**-9] * 256]:
        (weight * scale).sum().backward()
    assert weight.grad.dtype is torch.float32
    assert weight.grad.unique().tolist() == [1.5]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resume_in_bfloat16_goes_on_to_the_same_bits(half: PreTrainedModel, name: str, tmp_path: Path) -> None:
    config = SftConfig(optimizer=name, learning_rate=1e-3)
    whole = Optimizer(half, config, 10)
    for _ in range(3):
        sft_step(half, whole, EXAMPLES, 10)
    Trained(half, whole, torch.bfloat16).save_rest(tmp_path)
    for _ in range(3):
        sft_step(half, whole, EXAMPLES, 10)
    expected, expected_masters = weights(half), masters(half, whole)

    resumed = Optimizer(half, config, 10)
    Trained(half, resumed, torch.bfloat16).load_rest(tmp_path)
    for _ in range(3):
        sft_step(half, resumed, EXAMPLES, 10)
    torch.testing.assert_close(weights(half), expected, rtol=0, atol=0)
    torch.testing.assert_close(masters(half, resumed), expected_masters, rtol=0, atol=0)
