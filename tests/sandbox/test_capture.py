"""Output is drained always, kept within its cap, and never garbled."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retool.sandbox import Limits, Sandbox
from retool.sandbox.supervision.capture import Capture

MARKER = re.compile(r"\n… (\d+) bytes omitted …\n")


def captured(data: bytes, limit: int, chunk: int) -> str:
    capture = Capture(limit)
    for start in range(0, len(data), chunk):
        capture.feed(data[start : start + chunk])
    return capture.text()


@given(data=st.binary(max_size=300), limit=st.integers(300, 400), chunk=st.integers(1, 50))
def test_nothing_within_the_cap_is_lost(data: bytes, limit: int, chunk: int) -> None:
    assert captured(data, limit, chunk) == data.decode("utf-8", "backslashreplace")


@given(
    data=st.binary(max_size=500) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")),
    limit=st.integers(64, 200),
    chunk=st.integers(1, 500),
)
def test_of_a_longer_stream_the_ends_are_kept_and_the_rest_is_counted(data: bytes, limit: int, chunk: int) -> None:
    text = captured(data, limit, chunk)
    if len(data) <= limit:
        assert text == data.decode("utf-8", "backslashreplace")
        return
    (marker,) = [m for m in MARKER.finditer(text) if int(m[1]) >= len(data) - limit]
    omitted = int(marker[1])
    assert len(data) - limit <= omitted <= len(data) - limit + 6  # at most a character is given up on each side
    kept_head = next(
        n for n in range(limit // 2 + 2) if data[:n].decode("utf-8", "backslashreplace") == text[: marker.start()]
    )
    kept_tail = len(data) - omitted - kept_head
    assert data[len(data) - kept_tail :].decode("utf-8", "backslashreplace") == text[marker.end() :]


@given(text=st.text(alphabet="aé€😀", min_size=100, max_size=300), limit=st.integers(64, 99))
def test_a_cut_never_splits_a_character(text: str, limit: int) -> None:
    kept = captured(text.encode(), limit, 7)
    assert "\\x" not in kept


@given(chunks=st.lists(st.binary(min_size=1, max_size=100_000), max_size=8), limit=st.integers(64, 1000))
def test_memory_is_bounded_by_the_cap(chunks: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for chunk in chunks * 20:
        capture.feed(chunk)
    assert len(capture.text().encode()) <= 4 * limit + 100


def test_both_streams_are_drained_while_the_code_runs(box: Sandbox) -> None:
    code = "import sys\nfor i in range(3000):\n  print('o' * 1000)\n  print('e' * 1000, file=sys.stderr)"
    result = box.run_blocking(code, Limits(output_bytes=1000))
    assert result.status == "ok"
    assert MARKER.search(result.stdout)[1] == str(3000 * 1001 - 1000)
    assert MARKER.search(result.stderr)[1] == str(3000 * 1001 - 1000)


def test_lines_stay_in_order(box: Sandbox) -> None:
    assert box.run_blocking("for i in range(1000): print(i)").stdout.split() == [str(i) for i in range(1000)]


@pytest.mark.parametrize(
    ("written", "shown"),
    [(b"\xff\x00a", "\\xff\x00a"), ("ä€😀".encode(), "ä€😀"), (b"\x1b[31mred", "\x1b[31mred")],
)
def test_bytes_that_are_not_text_are_shown_as_escapes(box: Sandbox, written: bytes, shown: str) -> None:
    result = box.run_blocking(f"import sys; sys.stdout.buffer.write({written!r})")
    assert result.stdout == shown


@given(data=st.binary(max_size=2000), limit=st.integers(64, 300), chunks=st.lists(st.integers(1, 400), min_size=1))
def test_how_a_stream_is_cut_into_chunks_makes_no_difference(data: bytes, limit: int, chunks: list[int]) -> None:
    whole, pieces = Capture(limit), Capture(limit)
    whole.feed(data)
    rest = data
    for size in chunks * len(data):
        pieces.feed(rest[:size])
        rest = rest[size:]
    assert (pieces.text(), pieces.total) == (whole.text(), len(data))


@given(head=st.binary(max_size=200), middle=st.integers(70_000, 400_000), tail=st.binary(max_size=200))
def test_the_ends_of_a_very_long_stream_are_kept(head: bytes, middle: int, tail: bytes) -> None:
    capture = Capture(500)
    for part in (head, b"-" * middle, tail):
        capture.feed(part)
    text = capture.text()
    assert text.startswith(head.decode("utf-8", "backslashreplace"))
    assert text.endswith(tail.decode("utf-8", "backslashreplace"))
    assert int(MARKER.search(text)[1]) == len(head) + middle + len(tail) - 500


@settings(max_examples=40)
@given(data=st.binary(max_size=3000))
def test_any_bytes_that_code_writes_arrive(box: Sandbox, data: bytes) -> None:
    result = box.run_blocking(f"import os\nos.write(1, {data!r}); os.write(2, {data!r})")
    assert result.status == "ok"
    assert result.stdout == result.stderr == data.decode("utf-8", "backslashreplace")
