"""Low-rank adapters (Hu et al. 2021, LoRA): the model stays as it is, and thin matrices beside its layers learn.

PEFT puts them into the model itself, which remains transformers' own class: whoever calls it does not notice. What
others load are merged weights, under the names that the model has without adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from retool.config.schema import LoraConfig
from retool.errors import UsageError, first_line

_ADAPTER, _BASE = "default", ".base_layer"  # PEFT's names


def add_adapters(model: PreTrainedModel, config: LoraConfig, seed: int) -> None:
    """Freeze the model and put adapters of its data type beside the targeted layers. They change nothing at first.

    Raises UsageError for targets that there are not or that are no linear layers of the trunk, and without PEFT.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
        from peft.tuners.lora import Linear
    except ModuleNotFoundError as error:
        raise UsageError(f"model.lora needs the library {error.name}: pip install 'retool[lora]'") from error
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    settings = PeftConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets)
    head = model.get_output_embeddings()
    torch.manual_seed(seed)
    try:
        inject_adapter_in_model(settings, model, _ADAPTER)
    except ValueError as error:
        reason = first_line(error)
        raise UsageError(f"model.lora.targets={config.targets!r} does not fit the model: {reason}") from error
    wrong = [name for name, layer in _adapted_layers(model) if type(layer) is not Linear]
    if wrong or model.get_output_embeddings() is not head:
        found = wrong[0] if wrong else "the output head"
        raise UsageError(
            f"model.lora.targets={config.targets!r} means {found}; adapters go to linear layers inside the trunk only"
        )


def has_adapters(model: nn.Module) -> bool:
    return any(True for _ in _adapted_layers(model))


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within this context the model says what it said before it had adapters: the reference policy, without a copy."""
    layers = [layer for _, layer in _adapted_layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """As `named_parameters` without adapters, with their part added; one at a time, so that no copy of all is held."""
    return _merged(model, dict(model.named_parameters()))


def merged_state_dict(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """As `state_dict` without adapters, with their part added. `state` is the model's, gathered from other processes;
    None: it is taken from the model, which is left as it is."""
    return dict(_merged(model, model.state_dict() if state is None else state))


@torch.no_grad()
def _merged(model: nn.Module, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    layers = dict(_adapted_layers(model))
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".")
        path = owner.removesuffix(_BASE)
        if path in layers and owner != path:
            name = f"{path}.{leaf}"
            if leaf == "weight":
                value = _merge(value, layers[path], *(state[f"{path}.lora_{part}.{_ADAPTER}.weight"] for part in "AB"))
        if not _is_adapter(name):
            yield name, value


def _merge(weight: torch.Tensor, layer: nn.Module, down_RI: torch.Tensor, up_OR: torch.Tensor) -> torch.Tensor:
    """W + scale · BA in fp32, rounded to the weight's type. R rank, I inputs, O outputs."""
    delta_OI = layer.scaling[_ADAPTER] * (up_OR.float() @ down_RI.float())
    if layer.fan_in_fan_out:  # GPT-2 holds its weights the other way round
        delta_OI = delta_OI.t()
    return (weight.float() + delta_OI).to(weight.dtype)


def _adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Known by what PEFT's layers have, not by their class: whoever has no adapters needs no PEFT."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A"))


def _is_adapter(name: str) -> bool:
    return ".lora_" in name
