"""A small tokenizer for models from scratch: byte-level BPE with single digits, learned from the traces.

Any text can be encoded and comes back exactly. Digits stand alone, so that a number is copied digit by digit. The tags
of the paper are tokens of their own; what code prints is encoded with them off.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
