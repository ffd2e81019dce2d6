"""The laws are tried with each protocol on each of the small tokenizers."""

import pytest

from retool.config.schema import ProtocolConfig
from retool.protocol import make_protocol
from small_tokenizers import TOKENIZERS


@pytest.fixture(params=TOKENIZERS, scope="session")
def tokenizer(request):
    return TOKENIZERS[request.param]


@pytest.fixture(params=["tags", "native", "fenced"], scope="session")
def protocol(request, tokenizer):
    return make_protocol(ProtocolConfig(name=request.param), tokenizer)
