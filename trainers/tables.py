"""Tables of float16 rows: on the device or, where they are too large for it, in mapped files.

Both give the same bits. Shapes: R rows, W numbers of a row, B a batch.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.errors import UserError


class MappedTable:
    """Rows in mapped tensors of the host, which all but the last have as many rows as the first.
    An index or a slice gives its rows on `device`."""

    def __init__(self, blocks: Sequence[Tensor], device: torch.device) -> None:
        self._blocks = [block.numpy() for block in blocks]
        self._size, self.width = blocks[0].shape
        self.device, self._rows = device, sum(map(len, blocks))

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Rows [..., W] of an index of any shape or of a slice without a step. An index on a GPU
        has to be waited for; what is sent there is not."""
        found = self._slice(rows) if isinstance(rows, slice) else self._gather(rows)
        return found.to(self.device, non_blocking=True)

    def _slice(self, rows: slice) -> Tensor:
        at, end, _ = rows.indices(len(self))
        parts = []
        while at < end:
            number, first = divmod(at, self._size)
            parts.append(torch.from_numpy(self._blocks[number][first : first + end - at]))
            at += len(parts[-1])
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts) if parts else self._empty(0)

    def _gather(self, rows: Tensor) -> Tensor:
        index = rows.cpu().numpy().ravel()
        found = self._empty(len(index))
        target, (block, at) = found.numpy(), np.divmod(index, self._size)
        for i, (number, row) in enumerate(zip(block.tolist(), at.tolist(), strict=True)):
            target[i] = self._blocks[number][row]
        return found.view(*rows.shape, self.width)

    def _empty(self, rows: int) -> Tensor:
        pinned = self.device.type == "cuda"
        return torch.empty(rows, self.width, dtype=torch.half, pin_memory=pinned)


Table = Tensor | MappedTable


class Filling:
    """A table of `rows` rows that is filled from its start: on a device or, with a `folder`, in a
    mapped file there, which has no name and is gone with the process."""

    def __init__(self, rows: int, device: torch.device, folder: Path | None = None) -> None:
        self._rows, self._device, self._folder = rows, device, folder
        self._held: Tensor | None = None
        self._filled = 0

    def add(self, part: Tensor) -> None:
        """Copy the next rows [B, W] into their place.

        Raises:
            ValueError: they are too many.
            UserError: the disk of the folder is full.
        """
        end = self._filled + len(part)
        if end > self._rows:
            raise ValueError(f"a table of at least {end} rows, not {self._rows}")
        if self._held is None:
            self._held = self._new(part.shape[1])
        self._held[self._filled : end] = part.to(self._held.device)
        self._filled = end

    @property
    def begun(self) -> bool:
        """Whether it has any row."""
        return self._held is not None

    def filled(self, parts: Iterable[Tensor]) -> Table:
        """The whole table, of these parts."""
        for part in parts:
            self.add(part)
        return self.table()

    def table(self) -> Table:
        """The whole table. Raises ValueError where rows are missing."""
        if self._held is None or self._filled != self._rows:
            raise ValueError(f"a table of {self._filled} rows, not {self._rows}")
        if self._folder is None:
            return self._held
        return MappedTable([self._held], self._device)

    def _new(self, width: int) -> Tensor:
        if self._folder is None:
            return torch.empty(self._rows, width, dtype=torch.half, device=self._device)
        return _mapped_file(self._folder, self._rows, width)


def _mapped_file(folder: Path, rows: int, width: int) -> Tensor:
    """Room for a table, [R, W], in a file whose name is deleted at once."""
    folder.mkdir(parents=True, exist_ok=True)
    size = rows * width * torch.half.itemsize
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a crash
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"no room for a table of this run: {size / 1e9:.1f} GB are needed in {folder}, "
                f"which are not free; put the store on another disk (runtime.store=FOLDER), or "
                "give tables more of the device's memory (runtime.device_budget)"
            ) from error
        flat = torch.from_file(file.name, shared=True, size=rows * width, dtype=torch.half)
    return flat.view(rows, width)
