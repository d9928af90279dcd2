"""Images whose pixels stay in a file of the host, for data sets larger than the device memory.

The same bits as resident ones: `Views` gathers the images of a batch and sends them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from trainers.data.base import DataConfig, Images, Unlabelled

T = TypeVar("T", Images, Unlabelled)


def device_bytes(images: Images | Unlabelled, config: DataConfig) -> int:
    """What images need on a device to train from: their pixels and the padded copy of them."""
    count, channels, height, width = images.pixels.shape
    pad = 2 * config.crop_pad
    padded = (height + pad) * (width + pad) if pad else 0
    return count * channels * (height * width + padded)


def read_mapped(images: T, path: Path) -> T:
    """These images with their pixels read from a file that holds just them.

    Raises:
        ValueError: the file does not hold these pixels.
    """
    pixels = _map(path, images.pixels)
    if pixels is None or not torch.equal(pixels, images.pixels.cpu()):
        raise ValueError(f"{path} does not hold the pixels of digest {images.digest}")
    return images._replace(pixels=pixels, mapped=True)


def _map(path: Path, like: Tensor) -> Tensor | None:
    """The file as a tensor of that shape, private to this process; None: another size."""
    if path.stat().st_size != like.numel():
        return None
    flat = torch.from_file(str(path), shared=False, size=like.numel(), dtype=torch.uint8)
    return flat.view(like.shape)
