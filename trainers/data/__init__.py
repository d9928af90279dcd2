"""Data sets as uint8 tensors: train, validation and test, each with its digest.

A data set is a function from `DataConfig` to `Raw`. To add one: write it in a file next to these,
name it in `DATASETS`, and put its values into conf/data/NAME.yaml.

Shapes: N images of C channels, H × W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from trainers.data import cifar, digits, fashion_mnist, folder, imagenet32
from trainers.data.base import (
    DataConfig,
    DataDamaged,
    DataMissing,
    Images,
    Raw,
    Splits,
    TrainingData,
    stratified,
)
from trainers.data.fashion_mnist import DEBIAN_FASHION, read_idx

__all__ = [
    "DATASETS",
    "DEBIAN_FASHION",
    "DataConfig",
    "DataDamaged",
    "DataMissing",
    "Images",
    "Raw",
    "Splits",
    "TrainingData",
    "has_validation",
    "load",
    "read_idx",
    "stratified",
]

DATASETS: dict[str, Callable[[DataConfig], Raw]] = {
    "cifar10": cifar.read,
    "cifar100": cifar.read,
    "digits": digits.read,
    "fashion_mnist": fashion_mnist.read,
    "folder": folder.read,
    "imagenet32": imagenet32.read,
}


def load(config: DataConfig) -> Splits:
    """Read a data set and split it into train, validation and test.

    The validation part is stratified and fixed: the same for every seed of a study.

    Raises:
        DataMissing: its files do not exist.
        DataDamaged: its files do not hold what they should.
    """
    raw = DATASETS[config.name](config)
    _check(raw, config)
    fraction = config.val_fraction if raw.val is None else 0.0
    rest, val = stratified(raw.train_labels, fraction, f"{config.name}/val")
    if config.train_limit is not None and config.train_limit < len(rest):
        if config.train_limit < config.classes:
            raise DataDamaged(f"data.train_limit={config.train_limit}: fewer images than classes")
        _, keep = stratified(raw.train_labels[rest], config.train_limit / len(rest), "limit")
        _, few = stratified(raw.train_labels[val], config.train_limit / len(rest), "limit-val")
        rest, val = rest[keep], val[few]
    own = (raw.train_pixels[val], raw.train_labels[val]) if raw.val is None else raw.val
    return Splits(
        _images(raw.train_pixels[rest], raw.train_labels[rest]),
        _images(*own),
        _images(raw.test_pixels, raw.test_labels),
        raw.class_names,
        raw.sources,
    )


def has_validation(config: DataConfig) -> bool:
    """Whether there are validation images: a share of the training ones, or the data set's own."""
    return config.val_fraction > 0 or (config.name == "folder" and folder.has_validation(config))


def _check(raw: Raw, config: DataConfig) -> None:
    """What no data set may get wrong, whatever its loader looked at."""
    expected = (config.channels, config.image_size, config.image_size)
    for part, pixels, labels in (
        ("training", raw.train_pixels, raw.train_labels),
        ("test", raw.test_pixels, raw.test_labels),
        *((("validation", *raw.val),) if raw.val is not None else ()),
    ):
        if pixels.shape[1:] != expected:
            raise DataDamaged(
                f"data set {config.name} has images of shape {pixels.shape[1:]}, the "
                f"configuration (data.channels, data.image_size) expects {expected}"
            )
        if pixels.dtype != np.uint8 or labels.shape != (len(pixels),):
            raise DataDamaged(
                f"data set {config.name}: {len(pixels)} {part} images of type {pixels.dtype} and "
                f"labels of shape {labels.shape}; expected: uint8, and one label an image"
            )
        if not len(labels):
            raise DataDamaged(f"data set {config.name} has no {part} images")
        if int(labels.min()) < 0:
            raise DataDamaged(f"data set {config.name} has a label {labels.min()} below 0")
        if int(labels.max()) >= config.classes:
            raise DataDamaged(
                f"data set {config.name} has labels up to {labels.max()}, the configuration "
                f"(data.classes) expects {config.classes} classes"
            )


def _images(pixels: np.ndarray, labels: np.ndarray) -> Images:
    """With the digest. Pixels are copied only where they cannot be used as they lie."""
    pixels = np.require(pixels, requirements=["C", "W"])
    whole = np.ascontiguousarray(labels.astype(np.int64))
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data if pixels.size else b"")
    digest.update(whole.data if whole.size else b"")
    return Images(torch.from_numpy(pixels), torch.from_numpy(whole), digest.hexdigest())
