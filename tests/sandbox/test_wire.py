"""Messages arrive whole, whatever they hold and however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.sandbox import wire

MESSAGES = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(st.characters(codec=None), max_size=50) | st.integers() | st.none()),
    max_size=5,
)


@given(messages=MESSAGES, chunk=st.integers(1, 64))
def test_messages_survive_any_cut(messages: list[dict], chunk: int) -> None:
    stream = b"".join(wire.encode(message) for message in messages)
    decoder = wire.Decoder()
    received = []
    for start in range(0, len(stream), chunk):
        received += decoder.feed(stream[start : start + chunk])
    assert received == messages


def test_an_impossible_length_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="announces"):
        list(wire.Decoder().feed(b"\xff\xff\xff\xff"))
