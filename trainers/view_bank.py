"""View banks: the outputs of a frozen network on all training views and validation images.

Networks that do not learn are run once over the views and read from the bank in the loop. Shapes:
R rows (images × views, image-major), M validation images, B a batch, C classes, D pooled width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import parallel
from trainers.bank_codes import EVERYTHING, Codes, coded
from trainers.data import Images
from trainers.data.views import Normaliser, Views
from trainers.models import Outputs, outputs
from trainers.numerics import Numerics
from trainers.tables import Filling, MappedTable, Table

BANK_CHUNK = 128  # rows of one forward pass (they fit a cache): in the key, it moves last bits


class ViewOutputs(NamedTuple):
    """Outputs of one network on rows: logits [R, C] and pooled features [R, D], fp16."""

    logits: Tensor
    pooled: Tensor

    def at(self, row_B: Tensor) -> ViewOutputs:
        """The rows of a batch, raised to float32."""
        return ViewOutputs(self.logits[row_B].float(), self.pooled[row_B].float())

    def cpu(self) -> ViewOutputs:
        return ViewOutputs(self.logits.cpu(), self.pooled.cpu())


class TableOutputs(NamedTuple):
    """Outputs of one network on rows that are stored another way or in mapped files of the host;
    `folder` is where tables of as many rows are mapped that a run makes of them (None: these are
    held on the device)."""

    logits: Table
    pooled: Table
    folder: Path | None

    def at(self, row_B: Tensor) -> ViewOutputs:
        """The rows of a batch on the device, raised to float32."""
        return ViewOutputs(self.logits[row_B].float(), self.pooled[row_B].float())


Rows = ViewOutputs | TableOutputs


class Bank(NamedTuple):
    """A network's outputs on all training views (R rows) and on the validation images (M)."""

    train: Rows
    val: ViewOutputs

    @property
    def width(self) -> int:
        """Pooled width D of the network."""
        return self.val.pooled.shape[1]


def bank_bytes(rows: int, classes: int, width: int, codes: Codes = EVERYTHING) -> int:
    """Bytes of the outputs of a network of that pooled width on so many rows."""
    return rows * codes.row_bytes(classes, width)


def view_outputs(
    model: nn.Module, views: Views, numerics: Numerics, *, start: int = 0, stop: int | None = None
) -> Iterator[ViewOutputs]:
    """Outputs of `model` on all rows, BANK_CHUNK at a time, in evaluation mode (restored).

    `start` and `stop` are numbers of chunks, for a part of the bank.
    """
    was_training, device = model.training, views.device
    last = views.rows if stop is None else min(views.rows, stop * BANK_CHUNK)
    model.eval()
    for at in range(start * BANK_CHUNK, last, BANK_CHUNK):
        x = views.batch(torch.arange(at, min(at + BANK_CHUNK, views.rows), device=device))
        with torch.no_grad(), numerics.autocast(device):
            out = outputs(model, x)
        yield ViewOutputs(out.logits.half(), out.pooled.half())
    model.train(was_training)


def view_outputs_of_ranks(
    model: nn.Module, views: Views, numerics: Numerics, *, stop: int | None = None
) -> Iterator[ViewOutputs]:
    """`view_outputs`, made by all ranks of a run together."""
    if parallel.alone():
        return view_outputs(model, views, numerics, stop=stop)
    rows = views.rows if stop is None else min(views.rows, stop * BANK_CHUNK)

    def make(start: int, stop: int) -> Iterator[ViewOutputs]:
        return view_outputs(model, views, numerics, start=start, stop=stop)

    return map(ViewOutputs._make, parallel.in_parts(rows, BANK_CHUNK, make))


@torch.no_grad()
def image_outputs(
    model: nn.Module,
    images: Images,
    normalise: Normaliser,
    numerics: Numerics,
    *,
    of_ranks: bool = False,
) -> Outputs:
    """Outputs on whole, unmixed images, float32, in evaluation mode (restored); made by all ranks
    of a run together where all call it (`of_ranks`)."""
    was_training, count = model.training, len(images.labels)

    def make(start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        for at in range(start * BANK_CHUNK, stop * BANK_CHUNK, BANK_CHUNK):
            pixels = images.pixels[at : at + BANK_CHUNK].to(images.device)
            with numerics.autocast(images.device):
                out = outputs(model, normalise(pixels))
            yield out.logits.float(), out.pooled.float()

    model.eval()
    if of_ranks and not parallel.alone():
        parts = [*parallel.in_parts(max(1, count), BANK_CHUNK, make)]
    else:
        parts = [*map(list, make(0, -(-max(1, count) // BANK_CHUNK)))]
    model.train(was_training)
    logits, pooled = (torch.cat(column) for column in zip(*parts, strict=True))
    return Outputs(logits, pooled)


def packed(rows: ViewOutputs, codes: Codes) -> ViewOutputs:
    """Rows as a bank stores them."""
    return ViewOutputs(codes.logits.pack(rows.logits), codes.pooled.pack(rows.pooled))


def assemble(
    parts: Iterable[ViewOutputs],
    rows: int,
    device: torch.device,
    folder: Path | None = None,
    codes: Codes = EVERYTHING,
) -> Rows:
    """One table from its parts, which are `packed`, each copied into its place, so that only one is
    held twice; with a `folder` it is mapped there instead of being held on the device.

    Raises:
        ValueError: the parts do not make up `rows` rows.
        UserError: the disk of the folder is full.
    """
    logits, pooled = (Filling(rows, device, folder, code.dtype) for code in codes)
    for part in parts:
        logits.add(part.logits)
        pooled.add(part.pooled)
    tables = coded(logits.table(), codes.logits), coded(pooled.table(), codes.pooled)
    return rows_of(*tables, folder)


def mapped(
    parts: Sequence[ViewOutputs],
    rows: int,
    device: torch.device,
    folder: Path,
    codes: Codes = EVERYTHING,
) -> TableOutputs:
    """One table of mapped parts, which are `packed`.

    Raises:
        ValueError: the parts do not make up `rows` rows.
    """
    if (found := sum(len(part.logits) for part in parts)) != rows:
        raise ValueError(f"a table of {found} rows, not {rows}")
    logits, pooled = (
        coded(MappedTable([getattr(part, name) for part in parts], device), code)
        for name, code in zip(ViewOutputs._fields, codes, strict=True)
    )
    return TableOutputs(logits, pooled, folder)


def rows_of(logits: Table, pooled: Table, folder: Path | None) -> Rows:
    """The outputs in these tables; with a folder they are mapped."""
    if isinstance(logits, Tensor) and isinstance(pooled, Tensor):
        return ViewOutputs(logits, pooled)
    return TableOutputs(logits, pooled, folder)
