"""Clean views (the student's own crop and flip, before mixing) and the view bank.

Every training image has V fixed views, drawn from (data digest, view seed): all methods draw
their crops from them. Teachers are run once over the fixed views
(`trainers.view_bank`), never in the loop.

Shapes: N training images, the labelled ones first, V views, R = N·V rows (image-major), M
validation images, B a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.data import DataConfig, Images, Unlabelled
from trainers.numerics import Numerics
from trainers.read_ahead import Reads
from trainers.rng import generator, stream_seed
from trainers.step_index import Index, select
from trainers.tables import MappedTable

MAPPED = "in mapped files, being larger than runtime.device_budget"


class Crops(NamedTuple):
    """Which crop of which image `rows` are: number of the image, offsets of the crop, whether it is
    flipped (None: none is); of one shape each. `rows` is known where images are mapped."""

    image: Tensor
    dy: Tensor
    dx: Tensor
    flip: Tensor | None
    rows: Tensor | None = None

    def at(self, step: Index) -> Crops:
        """Those of one step of an epoch."""
        image, dy, dx = (select(one, step) for one in (self.image, self.dy, self.dx))
        flip, rows = (None if one is None else select(one, step) for one in (self.flip, self.rows))
        return Crops(image, dy, dx, flip, rows)


class Views:
    """The fixed crop/flip views of a set of training images, on the images' device, and of
    unlabelled ones after them.

    Images on the device are padded once; mapped ones batch by batch, with the same result.
    """

    def __init__(
        self,
        images: Images,
        config: DataConfig,
        numerics: Numerics,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        self.fresh, self.count = config.views == 0, max(1, config.views)
        self.images, self.unlabelled, self._flips = images, unlabelled, config.flip
        device, pad = images.device, config.crop_pad
        self._pad, self._mode = pad, config.pad_mode
        self._normalise = Normaliser(config, numerics, device)
        parts = [part.pixels for part in (images, unlabelled) if part is not None]
        self._windows = self._pixels = None
        if images.mapped:
            self._pixels = MappedTable([pixels.flatten(1) for pixels in parts], device)
        else:
            both = torch.cat(parts) if unlabelled else images.pixels
            self._windows = _windows(both, pad, self._mode)
        recipe = (config.views, pad, config.flip)
        self._draw(
            *(
                torch.Generator().manual_seed(
                    stream_seed(config.view_seed, "views", part.digest, *recipe)
                )
                for part in (images, unlabelled)
                if part is not None
            )
        )

    def redraw(self, seed: int, purpose: str, epoch: int) -> None:
        """Fresh crops for an epoch, where there are no fixed views (`data.views` 0): the same for
        every method at one seed."""
        if self.fresh:
            crops = (seed, purpose, "crops")
            self._draw(generator(*crops, epoch), generator(*crops, "unlabelled", epoch))

    def _draw(self, *draws: torch.Generator) -> None:
        """Crops of the labelled images from the first generator, of the others from the second:
        the labelled ones have the same views whatever others there are."""
        sides, parts = 2 * self._pad + 1, []
        counts = (self.labelled, self.total - self.labelled)
        for count, draw in zip(counts, draws, strict=False):
            shape = (count, self.count)
            dy, dx = (torch.randint(sides, shape, generator=draw) for _ in range(2))
            parts.append((dy, dx, torch.rand(shape, generator=draw) < 0.5))
        dy, dx, flip = (torch.cat(part) for part in zip(*parts, strict=True))
        self._dy, self._dx = dy.to(self.device), dx.to(self.device)
        self._flip = flip.to(self.device) if self._flips else None

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def labelled(self) -> int:
        """How many of the images have labels: the first ones."""
        return len(self.images.labels)

    @property
    def total(self) -> int:
        """N, of both kinds."""
        return self.labelled + (len(self.unlabelled.pixels) if self.unlabelled else 0)

    @property
    def rows(self) -> int:
        """R = N·V."""
        return self.total * self.count

    def batch(self, row_B: Tensor) -> Tensor:
        """The clean views of these rows, normalised float32 [B, C, H, W]."""
        return self.cut(self.crops(row_B))

    def crops(self, rows: Tensor) -> Crops:
        """Which crops these rows, of any shape, are."""
        image, view = rows // self.count, rows % self.count
        flip = None if self._flip is None else self._flip[image, view]
        planned = None if self._pixels is None else rows
        return Crops(image, self._dy[image, view], self._dx[image, view], flip, planned)

    def cut(self, crops_B: Crops) -> Tensor:
        """These crops, normalised float32 [B, C, H, W]."""
        pixels = self._windows_of(crops_B)
        if crops_B.flip is not None:
            pixels = torch.where(crops_B.flip[:, None, None, None], pixels.flip(-1), pixels)
        return self._normalise(pixels)

    def _windows_of(self, crops_B: Crops) -> Tensor:
        image_B, dy_B, dx_B, _, row_B = crops_B
        if self._windows is not None:
            return self._windows[image_B, :, dy_B, dx_B]
        assert self._pixels is not None
        assert row_B is not None
        pixels = self._pixels.read(image_B, row_B).unflatten(1, self.images.pixels.shape[1:])
        windows = _windows(pixels, self._pad, self._mode)
        return windows[torch.arange(len(image_B), device=self.device), :, dy_B, dx_B]

    @property
    def obstacle(self) -> str:
        """Why a step that cuts crops cannot be a CUDA graph; empty: it can."""
        return f"its images are {MAPPED}" if self.images.mapped else ""

    def reads(self, plan: Iterable[Tensor]) -> Reads:
        """What is read of mapped images for these rows."""
        return Reads(self._pixels, plan, self.count)

    def labels(self, row_B: Tensor) -> Tensor:
        """The labels of rows of labelled images; of another row it is an error (an index out of
        range), as there is none."""
        return self.images.labels[row_B // self.count]


class Normaliser:
    """uint8 pixels to normalised float32 in the run's memory format."""

    def __init__(self, config: DataConfig, numerics: Numerics, device: torch.device) -> None:
        mean = torch.tensor(config.mean, device=device)[:, None, None]
        std = torch.tensor(config.std, device=device)[:, None, None]
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._layout = numerics.layout()

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        x = pixels_BCHW.to(torch.float32, memory_format=self._layout)
        return x.mul_(self._scale).add_(self._shift)


def _windows(pixels_NCHW: Tensor, pad: int, mode: str) -> Tensor:
    """All crops of every image as a view of the padded images: [N, C, dy, dx, H, W], no copy."""
    size_h, size_w = pixels_NCHW.shape[2:]
    if pad == 0:
        return pixels_NCHW.unfold(2, size_h, 1).unfold(3, size_w, 1)
    if mode == "reflect":
        rows = _reflected(size_h, pad, pixels_NCHW.device)
        columns = _reflected(size_w, pad, pixels_NCHW.device)
        padded = pixels_NCHW[:, :, rows][:, :, :, columns]
    else:
        padded = F.pad(pixels_NCHW, (pad, pad, pad, pad))
    return padded.unfold(2, size_h, 1).unfold(3, size_w, 1)


def _reflected(size: int, pad: int, device: torch.device) -> Tensor:
    """Indices of reflect padding (the edge is not repeated)."""
    index = torch.arange(-pad, size + pad, device=device).abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
