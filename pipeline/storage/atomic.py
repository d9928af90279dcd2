"""Files that exist whole, or not at all, through kills and power cuts.

A file is written under a temporary name, synced, renamed, and its folder synced; what is read back
is held against its digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class CorruptFile(Exception):
    """The content of a file is not what was written."""


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replaces the file durably, or leaves it as it was. Makes its folder if absent.

    Raises OSError (a full disk, say) after removing the temporary file.
    """

    def write(file: BinaryIO) -> str:
        file.write(data)
        return path.name

    write_then_name(path.parent, path.name, write)


def sha256(source: Path | bytes) -> str:
    """The digest of a file or of bytes, 64 hexadecimal digits. Raises OSError."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(source).hexdigest()


class HashingWriter(RawIOBase):
    """Digests what passes through, so that a commit is neither held in memory nor read back.

    A failed write is kept for `raise_failure`: raised at once, it would reach the caller as a
    RuntimeError, since torch.save first tries to close an archive that is now cut short.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._failure: OSError | None = None
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        if self._failure is None:
            self.sha256.update(data)
            try:
                self._file.write(data)
            except OSError as error:
                self._failure = error
        return memoryview(data).nbytes

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def write_then_name(folder: Path, label: str, write: Callable[[BinaryIO], str]) -> Path:
    """Writes a file durably under the name that `write` returns, or raises and leaves nothing."""
    make_folder(folder)
    temporary = folder / f".{label}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            name = write(file)
            file.flush()
            os.fsync(file.fileno())
        if (folder / name).is_dir():
            set_aside(folder / name)
        temporary.replace(folder / name)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a write's
            error.filename = str(folder)
        raise
    sync_folder(folder)
    return folder / name


def set_aside(path: Path, why: str = "corrupt") -> Path:
    """Rename a file, or what is in its place, to `*.corrupt`, with a number where that is taken;
    return the new name. Raises OSError."""
    aside, number = path.with_name(f"{path.name}.{why}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{why}-{number}")
    path.rename(aside)
    return aside


def make_folder(folder: Path) -> None:
    """Like mkdir -p, but a power cut does not take away what it made."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # network file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def verify(path: Path, file: BufferedReader, digest: str) -> None:
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
        raise CorruptFile(f"{path} is corrupt: its content has another sha256 than its name")
