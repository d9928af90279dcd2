"""Checks of the arrays of a file: type, shape and range; the digest of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from trainers.data.base import DataDamaged


def rows_of_pixels(data: Any, source: Path) -> np.ndarray:
    """uint8 [n, 3072], channel by channel, as [n, 3, 32, 32].

    Raises:
        DataDamaged: something else.
    """
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        has = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataDamaged(f"{source}: 'data' is {has}; expected: uint8 (images, 3072)")
    return data.reshape(-1, 3, 32, 32)


def whole_numbers(labels: Any, count: int, source: Path, key: str) -> np.ndarray:
    """A list or an array of `count` whole numbers, as int64.

    Raises:
        DataDamaged: something else, or another number of them.
    """
    plain = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not plain and not (isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"):
        raise DataDamaged(f"{source}: {key!r} is no list of whole numbers")
    if np.ndim(labels) != 1:
        raise DataDamaged(f"{source}: {key!r} has {np.ndim(labels)} dimensions; expected: 1")
    if len(labels) != count:
        raise DataDamaged(f"{source}: {len(labels)} {key} for {count} images")
    if count and not (int(min(labels)) >= -(2**31) and int(max(labels)) < 2**31):
        raise DataDamaged(f"{source}: a label beyond all numbers of classes")
    return np.asarray(labels, dtype=np.int64)


def check_range(labels: np.ndarray, low: int, high: int, source: Path) -> None:
    """
    Raises:
        DataDamaged: a label outside low … high.
    """
    if len(labels) and (labels.min() < low or labels.max() > high):
        wrong = labels.min() if labels.min() < low else labels.max()
        raise DataDamaged(f"{source}: label {wrong}; in this format they are {low} … {high}")


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
