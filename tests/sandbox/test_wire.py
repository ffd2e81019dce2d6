"""Messages arrive whole, whatever they hold and however the stream is cut."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retool.sandbox import wire
from retool.sandbox.interpreter import job

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


@given(data=st.binary(max_size=400), chunk=st.integers(1, 64))
def test_any_bytes_are_messages_or_an_error_that_says_so(data: bytes, chunk: int) -> None:
    """Nothing but ValueError (of which JSON's and UTF-8's errors are kinds), however the stream is cut."""
    decoder = wire.Decoder()
    try:
        for start in range(0, len(data), chunk):
            for message in decoder.feed(data[start : start + chunk]):
                assert message == json.loads(json.dumps(message)) or message != message
    except ValueError as error:
        assert str(error)


@given(messages=MESSAGES, rest=st.integers(0, 20), chunk=st.integers(1, 64))
def test_an_unfinished_message_is_waited_for_and_those_before_it_are_not(
    messages: list[dict], rest: int, chunk: int
) -> None:
    last = wire.encode({"last": "x" * 20})
    stream = b"".join(wire.encode(message) for message in messages) + last[:rest]
    decoder = wire.Decoder()
    received = []
    for start in range(0, len(stream), chunk):
        received += decoder.feed(stream[start : start + chunk])
    assert received == messages
    assert list(decoder.feed(last[rest:])) == [{"last": "x" * 20}]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_a_message_may_hold_whatever_json_can(value: object) -> None:
    assert list(wire.Decoder().feed(wire.encode({"value": value}))) == [{"value": value}]


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 100)
    assert wire.encode({"x": "y" * 80})
    with pytest.raises(ValueError, match=r"a message of 1\d\d bytes is longer than the 100 allowed"):
        wire.encode({"x": "y" * 100})


@given(
    code=st.text(st.characters(codec=None), max_size=50),
    terms=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3600), st.integers(16, 1 << 20), st.booleans()),
    stdin=st.binary(max_size=50),
)
def test_a_job_is_read_as_it_was_written(code: str, terms: tuple[int, int, int, bool], stdin: bytes) -> None:
    """What follows the code belongs to the program, and is left in the pipe."""
    body = job.encode_code(code)
    written = job.Terms(len(body), *terms)
    pipe = io.BytesIO(written.encode() + body + stdin)
    assert job.Terms.read(pipe.read) == written
    assert job.decode_code(pipe.read(len(body))) == code
    assert pipe.read() == stdin
