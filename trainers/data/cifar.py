"""cifar10 and cifar100: Krizhevsky 2009, "Learning multiple layers of features from tiny images".

The "python version" of the files, unpacked or in its .tar.gz, which is then read in place. Their
sha256 is kept, and another number of images than the original's is a warning.
"""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from trainers.data.base import DataConfig, DataDamaged, Raw, fetch, missing
from trainers.data.checks import check_range, rows_of_pixels, sha256, whole_numbers
from trainers.data.pickles import read_pickle

log = logging.getLogger(__name__)

IMAGES = (50_000, 10_000)  # of training and test, in both
MOST_FILE = 2**28  # bytes of one file: the largest has 155 MB
MOST_ARCHIVE = 2**28  # bytes of an unpacked archive: both have 186 MB


@dataclass(frozen=True)
class Form:
    """How the files of one of the two are called, and their keys."""

    folder: str
    archive: str
    train: tuple[str, ...]
    held_out: str
    meta: str
    labels: str
    names: str
    classes: int

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.held_out, self.meta)


FORMS = {
    "cifar10": Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        "labels",
        "label_names",
        10,
    ),
    "cifar100": Form(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        "test",
        "meta",
        "fine_labels",
        "fine_label_names",
        100,
    ),
}


def read(config: DataConfig) -> Raw:
    """All batches, in order. Test is the test batch."""
    form, name = FORMS[config.name], config.name
    root = Path(config.root or "data")
    if config.download:
        from torchvision import datasets

        fetcher = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        fetch(name, lambda: fetcher(str(root), download=True))
    place, contents = _contents(form, name, root)
    parts = [_batch(contents[file], place / file, form) for file in form.train]
    test = _batch(contents[form.held_out], place / form.held_out, form)
    names = _class_names(contents[form.meta], place / form.meta, form)
    train_pixels = np.concatenate([pixels for pixels, _ in parts])
    train_labels = np.concatenate([labels for _, labels in parts])
    if (found := (len(train_labels), len(test[1]))) != IMAGES:
        log.warning(
            "%s: %d training and %d test images, the original %s has %d and %d: numbers of these "
            "files are not those of its literature",
            *(place, *found, name, *IMAGES),
        )
    paths = [place / file for file in form.files] if place.is_dir() else [place]
    sources = tuple((path.name, sha256(path)) for path in paths)
    return Raw(train_pixels, train_labels, *test, names, sources)


def _contents(form: Form, name: str, root: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The first place that has all files, and what each of them holds.

    Raises:
        DataMissing: its files do not exist.
        DataDamaged: its files do not hold what they should.
    """
    places = [root / form.folder, root]
    for place in places:
        if all((place / file).is_file() for file in form.files):
            return place, {file: _unpickled(place / file) for file in form.files}
    archive = root / form.archive
    if archive.is_file():
        return archive, _in_archive(archive, form)
    lacking = [file for file in form.files if not (places[0] / file).is_file()]
    what = f"{', '.join(lacking)} (python version), nor {form.archive}"
    ways = [
        f"put {form.archive}, or the folder {form.folder} from it, into a folder: data.root=PATH",
        "let torchvision fetch it: data.download=true",
    ]
    raise missing(name, what, places, ways)


def _unpickled(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_FILE:
        raise DataDamaged(f"{path}: {path.stat().st_size} bytes, more than a CIFAR file can have")
    return read_pickle(path.read_bytes(), path)


def _in_archive(path: Path, form: Form) -> dict[str, dict[str, Any]]:
    """The files in a .tar.gz, read in passing: nothing is written to disk."""
    found = {}
    try:
        with gzip.open(path) as packed:
            stream = cast(io.BufferedIOBase, _AtMost(packed, path))
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for name, data in _plain_files(tar, path):
                    folder, _, file = name.removeprefix("./").rpartition("/")
                    if folder == form.folder and file in form.files:
                        found[file] = read_pickle(data(), f"{path}: {file}")
    except DataDamaged:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DataDamaged(f"{path}: cannot be unpacked ({str(error)[:120]})") from error
    lacking = [file for file in form.files if file not in found]
    if lacking:
        raise DataDamaged(f"{path}: no {', '.join(lacking)} in its folder {form.folder}")
    return found


def _plain_files(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(name, function that reads its bytes) of the files; anything but files and folders, or a
    name that leads elsewhere, is no part of these archives."""
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or not (member.isreg() or member.isdir()):
            raise DataDamaged(f"{path}: {member.name[:80]!r} in it is no plain file of CIFAR")
        if member.size > MOST_FILE:
            raise DataDamaged(f"{path}: {member.name[:80]} in it claims {member.size} bytes")
        if member.isreg():
            yield member.name, partial(_bytes_of, tar, member)


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file is not None else b""


class _AtMost:
    """A stream that ends with an error where a CIFAR archive would have ended long ago."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        self._file, self._path, self._left = file, path, MOST_ARCHIVE

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise DataDamaged(f"{self._path}: unpacks to more than {MOST_ARCHIVE} bytes")
        return self._file.read(size)


def _batch(content: dict[str, Any], source: Path, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [n, 3, 32, 32], labels [n]) of one file."""
    pixels = rows_of_pixels(content.get("data"), source)
    labels = whole_numbers(content.get(form.labels), len(pixels), source, form.labels)
    check_range(labels, 0, form.classes - 1, source)
    return pixels, labels


def _class_names(content: dict[str, Any], source: Path, form: Form) -> tuple[str, ...]:
    names = content.get(form.names)
    if not isinstance(names, list) or len(names) != form.classes:
        raise DataDamaged(f"{source}: {form.names!r} is no list of {form.classes} names")
    if not all(isinstance(name, str | bytes) for name in names):
        raise DataDamaged(f"{source}: {form.names!r} holds something else than text")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
