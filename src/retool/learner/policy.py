"""The policy: a causal language model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from retool.config.schema import ModelConfig
from retool.errors import UsageError, first_line
from retool.kernels.products import take_fast_products
from retool.learner.adapters import add_adapters

transformers_logging.disable_progress_bar()  # a stage shows its own


def pick_device(config: ModelConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_policy(config: ModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model and tokenizer at `model.path`, a Hugging Face id or a folder. Raises UsageError if there is none.

    The model's logits end with the tokenizer's last id, however many rows its embeddings have.
    """
    assert config.path is not None
    kind = "folder" if Path(config.path).is_dir() else "Hugging Face id"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            config.path, dtype=getattr(torch, config.dtype), trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no causal language model could be loaded from {config.path!r} (taken as a {kind}): {first_line(error)}"
        ) from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    tokenizer = load_tokenizer(config.path, config.trust_remote_code)
    _cut_padding(model, tokenizer)
    take_fast_products(model)
    return model.to(pick_device(config)), tokenizer


def load_trainable(
    config: ModelConfig, seed: int, resumed: Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The policy that learns, as configured or as it was in the checkpoint `resumed`. Adapters, if any, are new ones,
    and what they have learned is for `load_checkpoint` to bring back."""
    if config.lora.rank == 0:
        return load_policy(config.model_copy(update={"path": str(resumed or config.path)}))
    model, tokenizer = load_policy(config)  # not the checkpoint, into whose weights the adapters are merged
    add_adapters(model, config.lora, seed)
    return model, tokenizer


def _cut_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Cut the logits of ids that no text has: embeddings are often padded, Qwen2.5's from 151,665 rows to 151,936.

    It is done at the head, which sampler and learner both call, so that one and the same distribution is sampled and
    trained; the weights, and with them the checkpoints, keep their shape.
    """
    known, head = max(tokenizer.get_vocab().values()) + 1, model.get_output_embeddings()
    if known < head.weight.shape[0]:
        head.register_forward_hook(lambda _module, _inputs, logits: logits[..., :known])


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model. Raises UsageError if there is none."""
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{str(path)!r} has no tokenizer: {first_line(error)}; save one beside the model with "
            "tokenizer.save_pretrained"
        ) from error


def create_model(config: ModelConfig, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A model with random weights from `model.architecture`, sized for the tokenizer."""
    if config.architecture is None:
        raise UsageError("there is no model: give model.path (a Hugging Face id or a folder) or model.architecture")
    architecture = dict(config.architecture)
    model_type = architecture.pop("model_type", None)
    if model_type is None:
        raise UsageError("model.architecture needs a 'model_type', a transformers architecture such as 'qwen2'")
    try:
        model_config = AutoConfig.for_model(
            model_type,
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **architecture,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"model.architecture is not a transformers config: {first_line(error)}") from error
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(model_config, dtype=getattr(torch, config.dtype))
    take_fast_products(model)
    return model.to(pick_device(config))


def parameter_count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
