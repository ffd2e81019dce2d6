"""A file is there as a whole, or the older one is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from retool.errors import RetoolError
from retool.files import publish


def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path: Path) -> None:
    publish(tmp_path / "new" / "folder" / "text", "ε\n")
    publish(str(tmp_path / "bytes"), b"\xff\r\n")
    assert (tmp_path / "new" / "folder" / "text").read_bytes() == "ε\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\xff\r\n"


def test_an_older_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    publish(path, "old, and longer")
    publish(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["pathlib.Path.write_bytes", "retool.files.os.replace"])
@pytest.mark.parametrize(
    ("number", "words", "reason"),
    [
        (errno.ENOSPC, "No space left on device", "the disk is full"),
        (errno.EACCES, "Permission denied", "Permission denied"),
    ],
)
def test_what_cannot_be_written_leaves_the_older_file(
    step: str, number: int, words: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    publish(path, "old")
    with monkeypatch.context() as broken:
        broken.setattr(step, fail(OSError(number, words)))
        with pytest.raises(RetoolError, match=f"could not write .*file: {reason}; make room or name another place"):
            publish(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_file_is_taken_away_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", write_half)
    with pytest.raises(RetoolError, match="the disk is full"):
        publish(tmp_path / "file", "content")
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file/new", "file/deep/new"):
        with pytest.raises(RetoolError, match="could not write"):
            publish(tmp_path / place, "content")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RetoolError, match="could not write"):
        publish(tmp_path / "folder", "content")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def fail(error: OSError):
    def raise_it(*_: object) -> None:
        raise error

    return raise_it
