"""The numbers of a model that memory and time depend on, from its Hugging Face config: no weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retool.config.schema import LoraConfig, ModelConfig
from retool.errors import UsageError, first_line

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Dense decoders with a gated MLP and RMS norms, whose parameters are those that `ModelShape` counts."""

_QWEN25 = {"model_type": "qwen2", "vocab_size": 152_064, "max_position_embeddings": 32_768}
_PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "max_position_embeddings": 8_192,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25
    | {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4_864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-7B-Instruct": _QWEN25
    | {
        "hidden_size": 3_584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-32B-Instruct": _QWEN25
    | {
        "hidden_size": 5_120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
"""Published configs of the presets' models, so that a plan of them needs neither a download nor transformers."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder: L layers of hidden size D with a gated MLP of size I, H query and K key/value heads of size d,
    and V ids. `biases` counts those of one layer, `head_norms` its norms over single heads (of size d each)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    biases: int = 0
    head_norms: int = 0
    context: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], path: str) -> ModelShape:
        """From the values of a Hugging Face config, defaults filled in. Raises UsageError for other families."""
        family = config.get("model_type")
        if family not in _FAMILIES:
            raise UsageError(
                f"a plan knows the memory of dense models of the types {', '.join(_FAMILIES)}; {path} is of the type "
                f"{family!r}"
            )
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        kv_heads = config.get("num_key_value_heads") or heads
        size, inner = config.get("head_dim") or hidden // heads, config["intermediate_size"]
        biases = 0
        if family == "qwen2" or config.get("attention_bias"):
            biases += (heads + 2 * kv_heads) * size + (0 if family == "qwen2" else hidden)
        if config.get("mlp_bias"):
            biases += 2 * inner + hidden
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=inner,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=size,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            biases=biases,
            head_norms=2 if family == "qwen3" else 0,
            context=config.get("max_position_embeddings"),
        )

    @property
    def attention_width(self) -> int:
        """H·d: the size of all queries of a token, and of what attention gives."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """K·d: the size of all keys of a token, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """D·Hd for queries and for the output, D·Kd for keys and for values, D·I for gate, up and down."""
        return self.hidden * (2 * self.attention_width + 2 * self.kv_width + 3 * self.intermediate)

    @property
    def layer_parameters(self) -> int:
        """Its matrices, biases, and two norms of size D."""
        return self.layer_matrices + self.biases + 2 * self.hidden + self.head_norms * self.head_dim

    @property
    def embedding(self) -> int:
        """V·D, which an output head of its own has once more."""
        return self.vocabulary * self.hidden

    @property
    def root_parameters(self) -> int:
        """What belongs to no layer: embedding, head and the last norm."""
        return (1 if self.tied else 2) * self.embedding + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.root_parameters

    @property
    def trunk_parameters(self) -> int:
        """All but an output head of its own: what a critic with a trunk of its own is a copy of."""
        return self.parameters - (0 if self.tied else self.embedding)

    @property
    def computed_parameters(self) -> int:
        """Those that each token is multiplied with: all but the embedding, which is looked up; the head is."""
        return self.layers * self.layer_parameters + self.embedding + self.hidden

    @property
    def kv_elements(self) -> int:
        """Keys and values of one token in all layers: 2·L·K·d."""
        return 2 * self.layers * self.kv_width

    def adapter_parameters(self, lora: LoraConfig) -> int:
        """rank · (inputs + outputs) of each adapted linear layer."""
        widths = {
            "q_proj": self.hidden + self.attention_width,
            "k_proj": self.hidden + self.kv_width,
            "v_proj": self.hidden + self.kv_width,
            "o_proj": self.attention_width + self.hidden,
            "gate_proj": self.hidden + self.intermediate,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.intermediate + self.hidden,
        }
        targets = widths if isinstance(lora.targets, str) else lora.targets
        return self.layers * lora.rank * sum(widths.get(name, 0) for name in targets)


def find_shape(model: ModelConfig) -> ModelShape:
    """The shape of the config's model: published, from its folder, from Hugging Face, or of one from scratch.

    Raises UsageError where there is no model or none of a known type.
    """
    if model.path in _PUBLISHED:
        return ModelShape.of(_PUBLISHED[model.path], model.path)
    if model.path is None and model.architecture is None:
        raise UsageError("there is no model: give model.path (a Hugging Face id or a folder) or model.architecture")
    return ModelShape.of(_read(model), model.path or "model.architecture")


def _read(model: ModelConfig) -> dict[str, Any]:
    from transformers import AutoConfig  # takes a second, which plans of the presets do without

    try:
        if model.path is not None:
            found = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
        else:
            given = dict(model.architecture or {})
            kind = given.pop("model_type", None)
            if kind is None:
                raise UsageError("model.architecture needs a 'model_type', such as 'qwen2'")
            found = AutoConfig.for_model(kind, **{"vocab_size": model.vocabulary, **given})
    except (OSError, ValueError, TypeError) as error:
        where = model.path or "model.architecture"
        raise UsageError(f"{where} has no config to plan with: {first_line(error)}") from error
    return found.get_text_config().to_dict()
