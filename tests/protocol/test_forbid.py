"""With the interpreter off, the opening of a call is out of reach, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.config.schema import ProtocolConfig
from retool.protocol import make_protocol
from small_tokenizers import TOKENIZERS

OPENINGS = {"tags": "<code>", "native": "<tool_call>", "fenced": "```py"}


@st.composite
def segments(draw):
    """A protocol and ids that come close to the opening of a call, split anywhere."""
    tokenizer = TOKENIZERS[draw(st.sampled_from(sorted(TOKENIZERS)))]
    name = draw(st.sampled_from(sorted(OPENINGS)))
    opening = OPENINGS[name]
    piece = st.one_of(st.integers(1, len(opening) - 1).map(lambda n: opening[:n]), st.sampled_from(["x", "\n", "é"]))
    pieces = draw(st.lists(piece, max_size=6))
    ids = [i for text in pieces for c in draw(st.sampled_from([[text], list(text)])) for i in tokenizer.encode(c)]
    return make_protocol(ProtocolConfig(name=name), tokenizer), ids


@given(segments())
def test_exactly_the_ids_that_complete_the_opening_are_forbidden(case):
    protocol, ids = case
    opening = OPENINGS[protocol.name]
    before = protocol.decode(ids).count(opening)
    vocabulary = range(len(protocol.codec.tokenizer))
    completing = {token for token in vocabulary if protocol.decode([*ids, token]).count(opening) > before}
    assert set(protocol.forbid(ids).tolist()) == completing


def test_the_array_is_shared_and_cannot_be_written(protocol):
    ids = protocol.codec.encode("x")
    assert protocol.forbid(ids) is protocol.forbid([])
    with pytest.raises(ValueError, match="read-only"):
        protocol.forbid(protocol.codec.encode("<code"))[...] = 0


def test_text_forbids_nothing(tokenizer):
    assert len(make_protocol(ProtocolConfig(name="text"), tokenizer).forbid([1, 2])) == 0
