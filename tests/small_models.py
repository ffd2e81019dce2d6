"""Models of any architecture, small enough to be made in a test."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
MULTI_HEAD = {"gpt2", "gpt_neox", "gptj", "mpt", "bloom"}  # as many key as query heads; their configs know no other


def make_model(model_type: str, **extra: object) -> PreTrainedModel:
    """With random weights, the same every time."""
    torch.manual_seed(0)
    sizes = {k: v for k, v in SIZES.items() if k != "num_key_value_heads" or model_type not in MULTI_HEAD}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**sizes, **extra})).eval()
