"""Options of a data set, its splits, and the errors of its files.

Shapes: N images of C channels, H × W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainers.errors import UserError
from trainers.options import option
from trainers.rng import generator


def _names() -> tuple[str, ...]:
    from trainers.data import DATASETS  # the registry imports the loaders, which import this file

    return tuple(sorted(DATASETS))


@dataclass
class DataConfig:
    """Data set, splits, and the recipe of the clean views.

    Options that determine the pixels are not part of the run key; the digest of the pixels is.
    """

    name: str = option("digits", "data set", choices=_names, identity=False)
    root: str | None = option(
        None, "folder of the files (null: the usual places)", identity=False, path=True
    )
    download: bool = option(False, "download files that are missing", identity=False)
    image_size: int = option(
        16, "height and width of the images, pixels", low=4, high=1024, identity=False
    )
    channels: int = option(1, "image channels: 1 grey, 3 colour", low=1, high=3, identity=False)
    classes: int = option(10, "number of classes", low=2)
    val_fraction: float = option(
        0.1,
        "share of the training data for validation (0 only with select=last)",
        low=0,
        high=0.9,
        identity=False,
    )
    train_limit: int | None = option(
        None, "train on a stratified subset of this many images", low=1, identity=False
    )
    unlabelled: int | str = option(
        0,
        "further training images, without their labels, from which the student learns what the "
        "teachers say of them: a number, or all that are left",
        low=0,
        choices=("all",),
        identity=False,
    )
    every_label: bool = option(
        False,
        "give the unlabelled images their labels: the ceiling of a study with few labels",
        identity=False,
    )
    val_limit: int | None = option(
        None,
        "validate on a stratified subset of this many images (null: in proportion to train_limit)",
        low=1,
        identity=False,
    )
    teacher_limit: int | None = option(
        None,
        "train the teachers on a subset of this many images, which contains the student's "
        "(null: on the student's images)",
        low=1,
        identity=False,
    )
    views: int = option(
        4,
        "fixed crop/flip views of every training image; 0: fresh crops in every epoch, with "
        "teachers run live",
        low=0,
        high=64,
    )
    view_seed: int = option(0, "seed of the fixed views", low=0)
    crop_pad: int = option(2, "padding of the random crop, pixels", low=0, high=64)
    pad_mode: str = option(
        "reflect",
        "content of the padding: mirrored image or zeros",
        choices=("reflect", "constant"),
    )
    flip: bool = option(False, "flip views horizontally, half of them")
    mean: list[float] = option([0.5], "channel means of pixels in 0..1")
    std: list[float] = option([0.5], "channel standard deviations of pixels in 0..1")


class Images(NamedTuple):
    """pixels [N, C, H, W] uint8, labels [N] int64, sha256 of both.

    `mapped`: the pixels are a file of the host that is read batch by batch; labels are on
    the device anyway (see `trainers.data.mapped`).
    """

    pixels: Tensor
    labels: Tensor
    digest: str
    mapped: bool = False

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self.labels.device

    def to(self, device: torch.device | str) -> Images:
        """On a device; of mapped images the labels only."""
        pixels = self.pixels if self.mapped else self.pixels.to(device)
        return self._replace(pixels=pixels, labels=self.labels.to(device))


class Unlabelled(NamedTuple):
    """Images without labels: pixels [N, C, H, W] uint8 and their sha256; mapped as, and only
    where, the labelled ones are."""

    pixels: Tensor
    digest: str
    mapped: bool = False

    def to(self, device: torch.device | str) -> Unlabelled:
        """On a device, unless they are mapped."""
        return self if self.mapped else self._replace(pixels=self.pixels.to(device))


class Splits(NamedTuple):
    """The parts of a data set. Trainers get train, val and unlabelled; only finalise opens test.

    `sources`: (file name, sha256) of the files of a data set whose copies differ.
    """

    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    unlabelled: Unlabelled | None = None

    @property
    def digest(self) -> str:
        """One digest of all images that have labels."""
        parts = (self.train.digest, self.val.digest, self.test.digest)
        return hashlib.sha256("/".join(parts).encode()).hexdigest()


class TrainingData(NamedTuple):
    """What trainers may see: no test images, and no label of the unlabelled ones."""

    train: Images
    val: Images
    unlabelled: Unlabelled | None = None


class DataMissing(UserError, FileNotFoundError):
    """A data set is not on this machine; the message lists where it was searched for."""


class DataDamaged(UserError, ValueError):
    """A file exists but does not hold what its format requires."""


class Raw(NamedTuple):
    """A data set as its files have it: pixels [N, C, H, W] uint8 and labels [N]."""

    train_pixels: np.ndarray
    train_labels: np.ndarray
    test_pixels: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[tuple[str, str], ...] = ()
    # Validation images of the data set's own: pixels and labels. None: a part of the training ones.
    val: tuple[np.ndarray, np.ndarray] | None = None
    # Pixels of images that have no label. None: there are none.
    unlabelled: np.ndarray | None = None


class Partition(NamedTuple):
    """Numbers of images among the training images of a data set's files, sorted. `unlabelled`, in
    random order, counts on through the images that have no label in the files."""

    train: np.ndarray
    val: np.ndarray
    unlabelled: np.ndarray


def stratified(
    labels_N: np.ndarray, fraction: float, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (rest, taken); `claimed` holds `fraction` of all, each class in proportion.

    Whole numbers are shared out by largest remainder, so the total is round(fraction · N).
    """
    classes, counts = np.unique(labels_N, return_counts=True)
    exact = counts * fraction
    quota = np.floor(exact).astype(int)
    short = round(len(labels_N) * fraction) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
    claimed = []
    for label, n in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels_N == label)
        order = torch.randperm(len(members), generator=generator(0, purpose, int(label))).numpy()
        claimed.append(members[order[:n]])
    chosen = np.sort(np.concatenate(claimed)) if claimed else np.empty(0, dtype=int)
    return np.setdiff1d(np.arange(len(labels_N)), chosen), chosen


def missing(name: str, what: str, places: list[Path], ways: list[str]) -> DataMissing:
    """The message of a data set that is absent: what, where it was looked for, how to get it."""
    return DataMissing(
        f"data set {name} is missing: no {what}\n"
        f"  looked in: {', '.join(str(place) for place in places)}\n"
        "  to get it: " + ";\n             or ".join(ways)
    )


def fetch(name: str, download: Callable[[], object]) -> None:
    """Let a library fetch a data set.

    Raises:
        DataMissing: it could not be fetched.
    """
    try:
        download()
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataMissing(
            f"data set {name} could not be fetched ({reason}); try again, or copy its files here "
            "and name their folder: data.root=PATH data.download=false"
        ) from error
