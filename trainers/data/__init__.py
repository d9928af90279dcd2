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
    Partition,
    Raw,
    Splits,
    TrainingData,
    Unlabelled,
    stratified,
)
from trainers.data.fashion_mnist import DEBIAN_FASHION, read_idx
from trainers.rng import generator

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
    "Unlabelled",
    "has_validation",
    "load",
    "partition",
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
    parts = partition(raw, config)
    if config.every_label:
        parts = _all_labelled(parts, len(raw.train_labels))
    if raw.val is None:
        val = (raw.train_pixels[parts.val], raw.train_labels[parts.val])
    else:
        share = min(1.0, (config.val_limit or np.inf) / len(raw.val[1]))
        some = stratified(raw.val[1], share, "limit-val")[1]
        val = (raw.val[0][some], raw.val[1][some])
    return Splits(
        _images(raw.train_pixels[parts.train], raw.train_labels[parts.train]),
        _images(*val),
        _images(raw.test_pixels, raw.test_labels),
        raw.class_names,
        raw.sources,
        _unlabelled(raw, parts.unlabelled) if len(parts.unlabelled) else None,
    )


def partition(raw: Raw, config: DataConfig) -> Partition:
    """Which images are for what. The labelled ones and those of validation are stratified; the
    unlabelled ones are the first of the others, in an order that no label enters.

    Raises:
        DataDamaged: fewer images than options ask for.
    """
    fraction = config.val_fraction if raw.val is None else 0.0
    rest, val = stratified(raw.train_labels, fraction, f"{config.name}/val")
    train, share = rest, 1.0
    if config.train_limit is not None and config.train_limit < len(rest):
        if config.train_limit < config.classes:
            raise DataDamaged(f"data.train_limit={config.train_limit}: fewer images than classes")
        share = config.train_limit / len(rest)
        train = rest[stratified(raw.train_labels[rest], share, "limit")[1]]
    if config.val_limit is not None:
        share = min(1.0, config.val_limit / max(1, len(val)))
    if share < 1:
        val = val[stratified(raw.train_labels[val], share, "limit-val")[1]]
    return Partition(train, val, _others(raw, rest, train, config))


def _others(raw: Raw, rest: np.ndarray, train: np.ndarray, config: DataConfig) -> np.ndarray:
    """Numbers of the unlabelled images: of a larger number the smaller one is the beginning."""
    wanted, own = config.unlabelled, 0 if raw.unlabelled is None else len(raw.unlabelled)
    if wanted == 0:
        return np.empty(0, dtype=int)
    pool = np.concatenate([rest, len(raw.train_labels) + np.arange(own)])
    order = torch.randperm(len(pool), generator=generator(0, "unlabelled")).numpy()
    left = pool[order][~np.isin(pool[order], train)]
    if not len(left):
        raise DataDamaged(
            f"data.unlabelled={wanted}: all {len(train)} training images have labels; give "
            "data.train_limit, or in data set folder a folder `unlabelled`"
        )
    if wanted != "all" and int(wanted) > len(left):
        raise DataDamaged(
            f"data.unlabelled={wanted}: {len(left)} images are left without a label; give at most "
            "that many, or all"
        )
    return left if wanted == "all" else left[: int(wanted)]


def _all_labelled(parts: Partition, labels: int) -> Partition:
    """With the unlabelled images among those of training.

    Raises:
        DataDamaged: some have no label (there are `labels` of them).
    """
    alone = int((parts.unlabelled >= labels).sum())
    if alone:
        raise DataDamaged(
            f"data.every_label=true: {alone} images of the folder `unlabelled` have no label"
        )
    train = np.sort(np.concatenate([parts.train, parts.unlabelled]))
    return parts._replace(train=train, unlabelled=parts.unlabelled[:0])


def has_validation(config: DataConfig) -> bool:
    """Whether there are validation images: a share of the training ones, or the data set's own."""
    return config.val_fraction > 0 or (config.name == "folder" and folder.has_validation(config))


def _check(raw: Raw, config: DataConfig) -> None:
    """What no data set may get wrong, whatever its loader looked at."""
    expected, own = (config.channels, config.image_size, config.image_size), raw.unlabelled
    for part, pixels, labels in (
        ("training", raw.train_pixels, raw.train_labels),
        ("test", raw.test_pixels, raw.test_labels),
        *((("validation", *raw.val),) if raw.val is not None else ()),
        *((("unlabelled", own, np.zeros(len(own), int)),) if own is not None and len(own) else ()),
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


def _unlabelled(raw: Raw, chosen: np.ndarray) -> Unlabelled:
    """The pixels of the chosen images; their labels end here."""
    count = len(raw.train_labels)
    pixels = np.empty((len(chosen), *raw.train_pixels.shape[1:]), dtype=np.uint8)
    known = chosen < count
    pixels[known] = raw.train_pixels[chosen[known]]
    if raw.unlabelled is not None:
        pixels[~known] = raw.unlabelled[chosen[~known] - count]
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return Unlabelled(torch.from_numpy(pixels), digest.hexdigest())


def _images(pixels: np.ndarray, labels: np.ndarray) -> Images:
    """With the digest. Pixels are copied only where they cannot be used as they lie."""
    pixels = np.require(pixels, requirements=["C", "W"])
    whole = np.ascontiguousarray(labels.astype(np.int64))
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data if pixels.size else b"")
    digest.update(whole.data if whole.size else b"")
    return Images(torch.from_numpy(pixels), torch.from_numpy(whole), digest.hexdigest())
