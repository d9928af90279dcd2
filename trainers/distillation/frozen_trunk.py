"""Stored feature maps below a teacher's first learning block, so that a teacher under adaptation is
run from that block on.

Kept for the small nets and for fixed views, up to MOST bytes a run; other teachers are run whole.
Shapes: R rows (images × views), M validation images, B a batch, C H W a feature map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import models
from trainers.data import Images
from trainers.data.views import Normaliser, Views
from trainers.models import Outputs
from trainers.models.cifar_resnet import SmallNet
from trainers.numerics import Numerics
from trainers.view_bank import BANK_CHUNK, ViewOutputs

MOST = 2**31  # bytes of all the trunks of a run; like BANK_CHUNK it moves last bits


class Trunk(NamedTuple):
    """The maps that a teacher's block `first` takes: [R, C, H, W] and [M, C, H, W]."""

    first: int
    train: Tensor
    val: Tensor

    def outputs(self, teacher: nn.Module, row_B: Tensor) -> Outputs:
        """The teacher's outputs on these rows, with a graph where its blocks learn."""
        return _above(teacher, self.train[row_B], self.first)

    @torch.no_grad()
    def view_outputs(self, teacher: nn.Module, numerics: Numerics) -> Iterator[ViewOutputs]:
        """Its outputs on all rows, BANK_CHUNK at a time, like `view_bank.view_outputs`."""
        for maps in self.train.split(BANK_CHUNK):
            with numerics.autocast(maps.device):
                out = _above(teacher, maps, self.first)
            yield ViewOutputs(out.logits.half(), out.pooled.half())

    @torch.no_grad()
    def val_rows(self, teacher: nn.Module, numerics: Numerics) -> ViewOutputs:
        """The teacher's outputs on the validation images."""
        with numerics.autocast(self.val.device):
            parts = [_above(teacher, maps, self.first) for maps in self.val.split(BANK_CHUNK)]
        return ViewOutputs(
            torch.cat([p.logits for p in parts]).half(), torch.cat([p.pooled for p in parts]).half()
        )


def trunks(
    teachers: Sequence[nn.Module],
    levels: Sequence[int],
    views: Views,
    val: Images,
    normalise: Normaliser,
    numerics: Numerics,
) -> list[Trunk | None]:
    """The trunk of each teacher (in evaluation mode) under the levels of freezing of all stages;
    None: it is run whole."""
    dtype, pixels, left, found = numerics.dtype, val.pixels, MOST, list[Trunk | None]()
    _, channels, height, width = pixels.shape
    for teacher in teachers:
        first, trunk = first_learning(teacher, levels), None
        if isinstance(teacher, SmallNet) and first is not None and not views.fresh:
            shape = models.map_shapes(teacher, (channels, height, width))[first - 1]
            size = (views.rows + len(pixels)) * math.prod(shape) * dtype.itemsize
            if size <= left:
                left -= size
                trunk = Trunk(
                    first,
                    *(
                        _empty((rows, *shape), dtype, views.device, numerics)
                        for rows in (views.rows, len(pixels))
                    ),
                )
                _fill(trunk, teacher, views, pixels, normalise, numerics)
        found.append(trunk)
    return found


def first_learning(teacher: nn.Module, levels: Sequence[int]) -> int | None:
    """Number of the lowest block that learns in any stage; None where nothing is gained by keeping
    what is below it: everything learns, the classifier alone does, or the net cannot be split."""
    if not isinstance(teacher, SmallNet) or min(levels) == -1 or max(levels) == 0:
        return None
    first = len(teacher.blocks_in_order()) - max(levels)
    return first if first > 0 else None


def _empty(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, numerics: Numerics
) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device, memory_format=numerics.layout())


@torch.no_grad()
def _fill(
    trunk: Trunk,
    teacher: SmallNet,
    views: Views,
    pixels: Tensor,
    normalise: Normaliser,
    numerics: Numerics,
) -> None:
    with numerics.autocast(views.device):
        for rows in torch.arange(views.rows, device=views.device).split(BANK_CHUNK):
            trunk.train[rows] = teacher.forward_blocks(views.batch(rows), 0, trunk.first)
        for rows in torch.arange(len(pixels)).split(BANK_CHUNK):
            images = normalise(pixels[rows].to(views.device))
            trunk.val[rows] = teacher.forward_blocks(images, 0, trunk.first)


def _above(teacher: nn.Module, maps_BCHW: Tensor, first: int) -> Outputs:
    assert isinstance(teacher, SmallNet)
    pooled = teacher.forward_head(teacher.forward_blocks(maps_BCHW, first), pre_logits=True)
    return Outputs(models.classify(teacher, pooled), pooled)
