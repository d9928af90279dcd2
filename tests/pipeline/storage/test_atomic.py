"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.storage.atomic import CorruptFile, sha256, verify, write_atomic


def test_write_atomic_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [child.name for child in path.parent.iterdir()] == ["file"]
    assert sha256(path) == sha256(b"two")


def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")

    def broken(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomic(path, b"two")
    assert [child.name for child in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"one"


def test_content_of_another_digest_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    with path.open("rb") as file:
        verify(path, file, sha256(b"one"))
    with path.open("rb") as file, pytest.raises(CorruptFile, match="corrupt"):
        verify(path, file, sha256(b"two"))
