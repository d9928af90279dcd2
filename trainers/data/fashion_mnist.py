"""fashion_mnist: Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747), from IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from trainers.data.base import DataConfig, DataDamaged, Raw, fetch, missing

FASHION_CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train_pixels": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_pixels": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
MOST_BYTES = 2**28  # of one file's array; the largest of MNIST's family has 47 MB
DEFLATE_MOST = 1100  # bytes out of one byte in: no deflated stream holds more


def read(config: DataConfig) -> Raw:
    """The four files, plain or gzipped, from a folder or a torchvision root; a `data.image_size`
    that divides theirs gives the means of square blocks of pixels."""
    if config.download:
        from torchvision.datasets import FashionMNIST

        fetch(config.name, lambda: FashionMNIST(config.root or "data", download=True))
    roots = [Path(config.root)] if config.root else [Path("data"), DEBIAN_FASHION]
    places = [place for root in roots for place in (root, root / "FashionMNIST" / "raw")]
    found = {part: _first_existing(places, stem) for part, stem in FILES.items()}
    absent = [FILES[part] for part, path in found.items() if path is None]
    if absent:
        ways = [
            "install Debian's package dataset-fashion-mnist",
            "name a folder with the files, or a torchvision root: data.root=PATH",
            "let torchvision fetch it: data.download=true",
        ]
        raise missing(config.name, f"{', '.join(absent)} (plain or .gz)", places, ways)
    arrays = {part: read_idx(path) for part, path in found.items() if path is not None}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_pixels"], arrays[f"{part}_labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataDamaged(f"{found[f'{part}_pixels']}: images and labels do not fit together")
        if labels.size and labels.max() >= len(FASHION_CLASSES):
            raise DataDamaged(f"{found[f'{part}_labels']}: label {labels.max()} of 10 classes")
    return Raw(
        _reduced(arrays["train_pixels"], config.image_size)[:, None],
        arrays["train_labels"],
        _reduced(arrays["test_pixels"], config.image_size)[:, None],
        arrays["test_labels"],
        FASHION_CLASSES,
    )


def _reduced(pixels_NHW: np.ndarray, size: int) -> np.ndarray:
    """Means of square blocks of pixels, uint8 [N, size, size]; the images as they are
    where `size` does not divide theirs."""
    count, height, width = pixels_NHW.shape
    if size >= height or height != width or height % size:
        return pixels_NHW
    block = height // size
    sums = pixels_NHW.reshape(count, size, block, size, block).sum((2, 4), dtype=np.uint32)
    return ((sums + block**2 // 2) // block**2).astype(np.uint8)


def _first_existing(places: list[Path], stem: str) -> Path | None:
    candidates = (place / (stem + ending) for place in places for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (LeCun's MNIST format), plain or gzipped. Nothing is unpacked
    beyond the size in the header, and a header that the file is too small for is an error.

    Raises:
        DataDamaged: not that format, or shorter or longer than its header states.
    """
    packed = path.suffix == ".gz"
    room = path.stat().st_size * (DEFLATE_MOST if packed else 1)
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return _idx_array(cast(BinaryIO, file), path, min(room, MOST_BYTES))
    except (EOFError, OSError, zlib.error) as error:
        raise DataDamaged(f"{path}: cannot be unpacked ({error})") from error


def _idx_array(file: BinaryIO, path: Path, room: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08":
        raise DataDamaged(f"{path}: not an IDX file of unsigned bytes")
    sizes = file.read(4 * magic[3])
    shape = struct.unpack(f">{magic[3]}I", sizes) if len(sizes) == 4 * magic[3] else ()
    if not shape or math.prod(shape) > room:
        raise DataDamaged(f"{path}: its bytes do not fit its header {shape}")
    data = file.read(math.prod(shape))
    if len(data) < math.prod(shape) or file.read(1):  # at the end gzip checks its sum
        raise DataDamaged(f"{path}: its bytes do not fit its header {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
