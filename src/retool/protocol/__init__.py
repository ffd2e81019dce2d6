"""How a conversation is rendered to ids, how a call is found in the ids being written, how its result comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retool.config.schema import ProtocolConfig
from retool.protocol.base import EMPTY_RESULT, Call, Protocol, Rendered, Splice
from retool.protocol.fenced import Fenced
from retool.protocol.native import Native
from retool.protocol.tags import Tags
from retool.protocol.text import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EMPTY_RESULT", "Call", "Protocol", "Rendered", "Splice", "make_protocol"]

_PROTOCOLS: dict[str, type[Protocol]] = {protocol.name: protocol for protocol in (Tags, Native, Fenced, Text)}


def make_protocol(config: ProtocolConfig, tokenizer: PreTrainedTokenizerBase) -> Protocol:
    """The protocol `config.name`, bound to `tokenizer`. UsageError if the tokenizer cannot serve it."""
    return _PROTOCOLS[config.name](config, tokenizer)
