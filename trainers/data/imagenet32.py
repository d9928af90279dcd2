"""imagenet32: the downsampled ImageNet of Chrabaszcz, Loshchilov, Hutter 2017 (arXiv 1707.08819).

train_data_batch_1 … 10 and val_data, as .npz or as pickles; labels are 1-based in the files. Test
is val_data. Some files of these names hold other pixels, so their sha256 is kept.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from trainers.data.base import DataConfig, DataDamaged, DataMissing, Raw, missing
from trainers.data.checks import check_range, rows_of_pixels, sha256, whole_numbers
from trainers.data.pickles import read_pickle

TRAIN = tuple(f"train_data_batch_{k}" for k in range(1, 11))
TEST = "val_data"
CLASSES = 1000
NAMES = "map_clsloc.txt"  # "synset number name" a line, as the ImageNet kit has it; optional
PIXELS = 3 * 32 * 32
MOST_ROWS = 140_000  # of one file: the largest batch has 128,123
DEFLATE_MOST = 1100  # bytes out of one byte in: no deflated member holds more


def read(config: DataConfig) -> Raw:
    """All batches, in order."""
    if config.download:
        raise DataMissing(
            "data set imagenet32 cannot be fetched: its terms ask for a login. Fetch "
            "Imagenet32_train and Imagenet32_val from image-net.org, unpack them into one folder, "
            "and say data.root=PATH data.download=false"
        )
    paths = _paths(config)
    train, test = paths[:-1], paths[-1]
    pixels, labels = _stacked(train)
    sources = tuple((path.name, sha256(path)) for path in paths)
    return Raw(pixels, labels, *_stacked([test]), _class_names(test.parent), sources)


def _paths(config: DataConfig) -> list[Path]:
    """The files in order, all of one form, from the first place that has all."""
    roots = [Path(config.root)] if config.root else [Path("data")]
    places = [place for root in roots for place in (root, root / "imagenet32")]
    names = (*TRAIN, TEST)
    for place in places:
        for ending in (".npz", ""):
            paths = [place / (name + ending) for name in names]
            if all(path.is_file() for path in paths):
                return paths
    lacking = [n for n in names if not any((p / f"{n}.npz").is_file() for p in places)]
    lacking = [n for n in lacking if not any((p / n).is_file() for p in places)] or lacking
    ways = [
        "fetch Imagenet32_train and Imagenet32_val (npz or pickles) from image-net.org, after a "
        "login; data.download cannot",
        "unpack both into one folder and name it: data.root=PATH",
    ]
    raise missing("imagenet32", f"{', '.join(lacking)} (.npz, or all as pickles)", places, ways)


def _stacked(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, labels from 0) of files one after the other, each copied into its place."""
    pixels = np.empty((sum(map(_rows_at_most, paths)), 3, 32, 32), dtype=np.uint8)
    labels, at = [], 0
    for path in paths:
        own, own_labels = _batch(path)
        pixels[at : at + len(own)] = own
        labels.append(own_labels)
        at += len(own)
    return pixels[:at], np.concatenate(labels)


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, labels from 0) of one file."""
    content = _npz(path) if path.suffix == ".npz" else read_pickle(path.read_bytes(), path)
    pixels = rows_of_pixels(content.get("data"), path)
    labels = whole_numbers(content.get("labels"), len(pixels), path, "labels")
    check_range(labels, 1, CLASSES, path)
    return pixels, labels - 1


def _rows_at_most(path: Path) -> int:
    """How many images a file can hold, from its sizes alone.

    Raises:
        DataDamaged: more than a batch has.
    """
    size = path.stat().st_size
    if path.suffix == ".npz":
        with _archive(path) as archive:
            size = _member(archive, "data", path).file_size
    if size > MOST_ROWS * PIXELS * 1.1:
        raise DataDamaged(f"{path}: {size} bytes of data, more than a batch of ImageNet-32 has")
    return size // PIXELS


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataDamaged(f"{path}: not an npz file, or truncated ({error})") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    """The directory's entry of an array; a size that cannot be true is an error."""
    found = [info for info in archive.infolist() if info.filename == f"{name}.npy"]
    if len(found) != 1:
        raise DataDamaged(f"{path}: no array {name!r} in it, or several")
    packed = min(found[0].compress_size, path.stat().st_size)
    if found[0].file_size > packed * DEFLATE_MOST:
        raise DataDamaged(
            f"{path}: {name!r} claims {found[0].file_size} bytes packed into {packed}"
        )
    return found[0]


def _npz(path: Path) -> dict[str, Any]:
    """data and labels; nothing in it is unpickled."""
    with _archive(path) as archive:
        found = {}
        for name in ("labels", "data"):
            info = _member(archive, name, path)
            try:
                with archive.open(info) as file:
                    found[name] = _npy(file, info.file_size, f"{path}: {name!r}")
            except DataDamaged:
                raise
            except Exception as error:  # whatever a damaged header or stream leads to
                raise DataDamaged(f"{path}: {name!r} is damaged ({str(error)[:120]})") from error
        return found


def _npy(file: IO[bytes], size: int, what: str) -> np.ndarray:
    """An array of numpy's format in a member of `size` bytes. The header is believed only as far
    as the size bears it out.

    Raises:
        DataDamaged: an array of objects, too large, or of another size than its header states.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in "iu":
        raise DataDamaged(f"{what} is an array of {dtype}, which is not read; expected: integers")
    if len(shape) not in (1, 2) or shape[0] > MOST_ROWS or fortran:
        raise DataDamaged(f"{what} has shape {shape}, more than a batch of ImageNet-32 has")
    count = math.prod(shape) * dtype.itemsize
    if count != size - file.tell():
        raise DataDamaged(f"{what} of shape {shape} does not fit its {size} bytes")
    data = file.read(count)
    if len(data) != count or file.read(1):  # at the end zipfile checks its sum
        raise DataDamaged(f"{what} is shorter or longer than its header says")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _class_names(folder: Path) -> tuple[str, ...]:
    """From map_clsloc.txt where it exists, else the numbers of the files, 1 … 1000."""
    path = folder / NAMES
    if not path.is_file():
        return tuple(str(number) for number in range(1, CLASSES + 1))
    lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    names = {int(line[1]): line[2] for line in lines if len(line) == 3 and line[1].isdigit()}
    if sorted(names) != list(range(1, CLASSES + 1)):
        raise DataDamaged(f"{path}: not 1000 lines of synset, number 1 … 1000 and name")
    return tuple(names[number] for number in range(1, CLASSES + 1))
