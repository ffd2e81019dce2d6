"""A small tokenizer for models from scratch: byte-level BPE with single digits, learned from the traces.

Any text can be encoded and comes back exactly. Digits stand alone, so that a number is copied digit by digit. The tags
of the paper are tokens of their own; what code prints is encoded with them off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from retool.errors import UsageError

_SPECIAL = ["<pad>", "<eos>", "<user>", "<assistant>", "<code>", "</code>", "<interpreter>", "</interpreter>"]
_PIECES = r"\d| ?[A-Za-z]+ ?| ?[^\sA-Za-z\d]+ ?|\n *|\s+"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a vocabulary of at most `vocabulary` entries. The same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        extra_special_tokens=_SPECIAL[2:],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def check_reload(model_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Raise UsageError if AutoTokenizer, given the files of a checkpoint, would make another tokenizer of them.

    transformers gives some model types (qwen2) a tokenizer class of their own, which splits text its own way whatever
    was saved; a model trained with this tokenizer would then read noise.
    """
    with tempfile.TemporaryDirectory() as folder:
        model_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        reloaded = AutoTokenizer.from_pretrained(folder)
    if reloaded(text)["input_ids"] != tokenizer(text)["input_ids"]:
        raise UsageError(
            f"model.architecture.model_type={model_config.model_type!r} brings a tokenizer of its own, which does not "
            "read text as the one learned from the traces; take a type without, such as 'llama'"
        )
