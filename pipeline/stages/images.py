"""Training images on the device, or in a mapped file of the store where they do not fit.

Batches are the same bits either way, so the place is no part of a run's identity.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.cli.console import say
from pipeline.config import Config, RuntimeConfig
from pipeline.identity import hold, splits
from pipeline.session import Session
from pipeline.storage.atomic import write_atomic
from trainers.data import Images, Splits, Unlabelled
from trainers.data.mapped import device_bytes, read_mapped
from trainers.options import bytes_of

T = TypeVar("T", Images, Unlabelled)


def on_device(config: Config, session: Session) -> Splits:
    """The data set with its training and validation images on the device; training images that
    need more than `runtime.device_budget` there are mapped."""
    data, device = splits(config.data), session.device
    needed = resident_bytes(data, config)
    budget = budget_bytes(config.runtime, session)
    if needed > budget:
        folder = Path(config.runtime.store).resolve() / "pixels"
        limit = f"the {budget / 1e6:.1f} MB of runtime.device_budget"
        say(f"training images need {needed / 1e6:.1f} MB, more than {limit}: mapped from {folder}")
        train = in_file(data.train, folder / f"{data.train.digest}.u8")
        others = data.unlabelled and in_file(
            data.unlabelled, folder / f"{data.unlabelled.digest}.u8"
        )
        data = data._replace(train=train, unlabelled=others)
        hold(config.data, data)  # frees the copy in memory
    return data._replace(
        train=data.train.to(device),
        val=data.val.to(device),
        unlabelled=data.unlabelled and data.unlabelled.to(device),
    )


def resident_bytes(data: Splits, config: Config) -> int:
    """Bytes of the device that training images need, 0 where they are mapped."""
    parts = [part for part in (data.train, data.unlabelled) if part is not None and not part.mapped]
    return sum(device_bytes(part, config.data) for part in parts)


def in_file(images: T, path: Path) -> T:
    """These images with their pixels in a file, which is written if it is missing or damaged."""
    if path.is_file():
        try:
            return read_mapped(images, path)
        except ValueError as error:
            say(f"{error}: rewritten")
    write_atomic(path, images.pixels.contiguous().numpy().data.cast("B"))
    return read_mapped(images, path)


def budget_bytes(runtime: RuntimeConfig, session: Session) -> int:
    """The device budget; where none is given, half of the device's memory."""
    if runtime.device_budget is not None:
        return bytes_of(runtime.device_budget)
    if session.device.type == "cuda":
        return torch.cuda.get_device_properties(session.device).total_memory // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
