"""What a model and a machine must be for the engine to hold it, and what it says where they are not."""

from __future__ import annotations

import warnings

import pytest
import torch

from retool.errors import UsageError
from retool.sampling.engine import Engine
from small_models import make_model


def test_rows_that_cannot_be_made_alike_are_told_of_in_deterministic_mode() -> None:
    class UnlikeRows(torch.nn.Module):
        """As a product that sums up one row in another order."""

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden + 1e-3 * (torch.arange(len(hidden)) == 1)[:, None, None]

    model = make_model("llama")
    model.model.norm = UnlikeRows()
    with pytest.warns(RuntimeWarning, match=r"2 to 32 rows the bits .* set threads=1"):
        Engine(model, rows=2, capacity=80, deterministic=True)
    with pytest.warns(RuntimeWarning, match=r"2 to 8 rows .* a higher rollout\.cache_mib"):
        Engine(model, rows=2, capacity=80, cache_bytes=15 * 2 * 2 * 2 * 96 * 8 * 4, deterministic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Engine(model, rows=2, capacity=80)


@pytest.mark.parametrize(("listed", "expected"), [(None, set()), (7, {7}), ([7, 9], {7, 9})])
def test_the_engine_knows_every_end_that_the_generation_config_lists(
    listed: int | list[int] | None, expected: set[int]
) -> None:
    model = make_model("llama")
    model.generation_config.eos_token_id = listed
    assert Engine(model, rows=1, capacity=80).eos_ids == expected


def test_models_whose_cache_it_cannot_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="layers of type"):
        model = make_model("llama")
        model.config.layer_types = ["linear_attention"] * 2
        Engine(model, rows=1, capacity=80)


@pytest.mark.parametrize("model_type", ["rwkv", "bloom", "gptj", "mpt"])
def test_a_model_that_says_something_else_through_the_cache_is_refused(model_type: str) -> None:
    with pytest.raises(UsageError, match=rf"'{model_type}' does not work with the engine's KV cache"):
        Engine(make_model(model_type), rows=1, capacity=80)


def test_an_encoder_decoder_is_refused() -> None:
    model = make_model("llama")
    model.config.is_encoder_decoder = True
    with pytest.raises(UsageError, match="is an encoder-decoder"):
        Engine(model, rows=1, capacity=80)
