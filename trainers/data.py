"""Data sets as uint8 tensors: train, validation and test, each with its digest.

Shapes: N images of C channels, H × W pixels.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.options import option
from trainers.streams import generator


@dataclass
class DataConfig:
    """What is loaded, how it is split, and the recipe of the clean views.

    What decides the pixels is no part of a run's identity by name: the digest of the pixels is.
    """

    name: str = option(
        "digits", "data set", choices=lambda: tuple(sorted(DATASETS)), identity=False
    )
    root: str | None = option(None, "folder of the files (null: the usual places)", identity=False)
    download: bool = option(False, "fetch absent files", identity=False)
    image_size: int = option(16, "pixels a side", low=4, high=1024, identity=False)
    channels: int = option(1, "1 grey, 3 colour", low=1, high=3, identity=False)
    classes: int = option(10, "number of classes", low=2)
    val_fraction: float = option(
        0.1,
        "share of the training data that selects (0 only with select=last)",
        low=0,
        high=0.9,
        identity=False,
    )
    train_limit: int | None = option(
        None, "train on a stratified subset of this many images", low=1, identity=False
    )
    views: int = option(4, "fixed crop/flip views of every training image", low=1, high=64)
    view_seed: int = option(0, "seed of the fixed views", low=0)
    crop_pad: int = option(2, "padding of the random crop, pixels", low=0, high=64)
    pad_mode: str = option("reflect", "what the padding shows", choices=("reflect", "constant"))
    flip: bool = option(False, "horizontal flips")
    mean: list[float] = option([0.5], "channel means of pixels in 0..1")
    std: list[float] = option([0.5], "channel deviations of pixels in 0..1")


class Images(NamedTuple):
    """pixels [N, C, H, W] uint8, labels [N] int64, sha256 of both."""

    pixels: Tensor
    labels: Tensor
    digest: str

    def to(self, device: torch.device | str) -> Images:
        return Images(self.pixels.to(device), self.labels.to(device), self.digest)


class Splits(NamedTuple):
    """The three parts of a data set. Trainers get train and val; only finalise opens test."""

    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """One digest of everything a stage can see."""
        parts = (self.train.digest, self.val.digest, self.test.digest)
        return hashlib.sha256("/".join(parts).encode()).hexdigest()


class TrainingData(NamedTuple):
    """What trainers may see: no test images."""

    train: Images
    val: Images


class DataMissing(FileNotFoundError):
    """A data set is not on this machine: what was looked for, where, and the ways on."""


class DataDamaged(ValueError):
    """A file is there but does not hold what its format promises."""


class Raw(NamedTuple):
    """A data set as its files have it: pixels [N, C, H, W] uint8 and labels [N]."""

    train_pixels: np.ndarray
    train_labels: np.ndarray
    test_pixels: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def load(config: DataConfig) -> Splits:
    """Read a data set and cut it into train, validation and test.

    The validation part is stratified and fixed: the same for every seed of a study.

    Raises:
        DataMissing, DataDamaged
    """
    raw = DATASETS[config.name](config)
    expected = (config.channels, config.image_size, config.image_size)
    if raw.train_pixels.shape[1:] != expected:
        raise DataDamaged(
            f"data set {config.name} has images of shape {raw.train_pixels.shape[1:]}, the "
            f"configuration (data.channels, data.image_size) says {expected}"
        )
    largest = max((int(y.max()) for y in (raw.train_labels, raw.test_labels) if len(y)), default=0)
    if largest >= config.classes:
        raise DataDamaged(
            f"data set {config.name} has labels up to {largest}, the configuration "
            f"(data.classes) says {config.classes} classes"
        )
    rest, val = stratified(raw.train_labels, config.val_fraction, f"{config.name}/val")
    if config.train_limit is not None and config.train_limit < len(rest):
        if config.train_limit < config.classes:
            raise DataDamaged(f"data.train_limit={config.train_limit}: fewer images than classes")
        _, keep = stratified(raw.train_labels[rest], config.train_limit / len(rest), "limit")
        _, few = stratified(raw.train_labels[val], config.train_limit / len(rest), "limit-val")
        rest, val = rest[keep], val[few]
    return Splits(
        _images(raw.train_pixels[rest], raw.train_labels[rest]),
        _images(raw.train_pixels[val], raw.train_labels[val]),
        _images(raw.test_pixels, raw.test_labels),
        raw.class_names,
    )


def stratified(
    labels_N: np.ndarray, fraction: float, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (rest, taken); `taken` holds `fraction` of all, each class in proportion.

    Whole numbers are shared out by largest remainder, so the total is round(fraction · N).
    """
    classes, counts = np.unique(labels_N, return_counts=True)
    exact = counts * fraction
    quota = np.floor(exact).astype(int)
    short = round(len(labels_N) * fraction) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
    taken = []
    for label, n in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels_N == label)
        order = torch.randperm(len(members), generator=generator(0, purpose, int(label))).numpy()
        taken.append(members[order[:n]])
    chosen = np.sort(np.concatenate(taken)) if taken else np.empty(0, dtype=int)
    return np.setdiff1d(np.arange(len(labels_N)), chosen), chosen


def _images(pixels: np.ndarray, labels: np.ndarray) -> Images:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    digest.update(np.ascontiguousarray(labels.astype(np.int64)).tobytes())
    return Images(
        torch.from_numpy(np.array(pixels)),
        torch.from_numpy(labels.astype(np.int64)),
        digest.hexdigest(),
    )


def _digits(config: DataConfig) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8 px upscaled, fixed stratified 20 % test."""
    table = _digits_table()
    small = torch.from_numpy(table[:, :64]).float().view(-1, 1, 8, 8) * (255 / 16)
    size = (config.image_size, config.image_size)
    large = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    pixels = large.round().clamp(0, 255).to(torch.uint8).numpy()
    labels = table[:, 64].astype(np.int64)
    rest, test = stratified(labels, 0.2, "digits/test")
    names = tuple(str(d) for d in range(10))
    return Raw(pixels[rest], labels[rest], pixels[test], labels[test], names)


def _digits_table() -> np.ndarray:
    """64 pixels (0..16) and a label a row, from the file in the scikit-learn package: importing
    the package for it takes longer than everything else that a reused run does."""
    spec = importlib.util.find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(places or []), "")) / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataMissing(
            f"data set digits is not here: no {file}; it comes with the package scikit-learn"
        )
    with gzip.open(file, "rt") as text:
        return np.loadtxt(text, delimiter=",")


FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_IDX = {
    "train_pixels": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_pixels": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def _fashion_mnist(config: DataConfig) -> Raw:
    """Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747), from IDX files, plain or gzipped."""
    if config.download:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(config.root or "data", download=True)
    roots = [Path(config.root)] if config.root else [Path("data"), DEBIAN_FASHION]
    places = [place for root in roots for place in (root, root / "FashionMNIST" / "raw")]
    found = {part: _first_existing(places, stem) for part, stem in _IDX.items()}
    absent = [_IDX[part] for part, path in found.items() if path is None]
    if absent:
        raise DataMissing(
            f"data set fashion_mnist is not here: no {', '.join(absent)} (plain or .gz)\n"
            f"  looked in: {', '.join(str(p) for p in places)}\n"
            "  ways on: install Debian's package dataset-fashion-mnist;\n"
            "           or name a folder with the files, or a torchvision root: data.root=PATH;\n"
            "           or let torchvision fetch it: data.download=true"
        )
    arrays = {part: read_idx(path) for part, path in found.items() if path is not None}
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_pixels"], arrays[f"{part}_labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataDamaged(f"{found[f'{part}_pixels']}: images and labels do not fit together")
        if labels.size and labels.max() >= len(FASHION_CLASSES):
            raise DataDamaged(f"{found[f'{part}_labels']}: label {labels.max()} of 10 classes")
    return Raw(
        arrays["train_pixels"][:, None], arrays["train_labels"],
        arrays["test_pixels"][:, None], arrays["test_labels"], FASHION_CLASSES,
    )  # fmt: skip


def _first_existing(places: list[Path], stem: str) -> Path | None:
    candidates = (place / (stem + ending) for place in places for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (LeCun's MNIST format), plain or gzipped.

    Raises:
        DataDamaged: not that format, or shorter or longer than its header says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataDamaged(f"{path}: cannot be unpacked ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataDamaged(f"{path}: not an IDX file of unsigned bytes")
    header = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:header]) if len(data) >= header else ()
    if not shape or len(data) - header != int(np.prod(shape, dtype=np.int64)):
        raise DataDamaged(f"{path}: {len(data)} bytes do not fit its header {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


DATASETS: dict[str, Callable[[DataConfig], Raw]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
}
