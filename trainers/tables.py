"""Tables of rows: on the device or, where they are too large for it, in mapped files.

Both give the same bits. Shapes: R rows, W numbers of a row, B a batch.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.errors import UserError


class MappedTable:
    """Rows of one width and type in mapped tensors of the host, one after the other. An index or a
    slice gives its rows on `device`; `ahead`, where it is set, knows those of some indices
    (`trainers.read_ahead`)."""

    def __init__(self, blocks: Sequence[Tensor], device: torch.device) -> None:
        self._blocks = [block.numpy() for block in blocks]
        self._starts = np.cumsum([0, *map(len, blocks)])
        self._addresses = [block.data_ptr() for block in blocks]
        for address, block in zip(self._addresses, self._blocks, strict=True):
            _advise(address, block.nbytes, "MADV_RANDOM")  # else a row brings megabytes with it
        self.width, self.dtype, self.device = blocks[0].shape[1], blocks[0].dtype, device
        self.ahead: Callable[[Tensor], Tensor | None] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Rows [..., W] of an index of any shape or of a slice without a step."""
        return self._slice(rows) if isinstance(rows, slice) else self.read(rows, rows)

    def read(self, index: Tensor, planned: Tensor) -> Tensor:
        """Rows [..., W] of an index of any shape. One on a GPU has to be waited for, unless they
        were read ahead for `planned`; what is sent there is not."""
        found = None if self.ahead is None else self.ahead(planned)
        return self._sent(self.gather(index.cpu()) if found is None else found)

    def gather(self, index: Tensor) -> Tensor:
        """Rows [..., W] of an index of the host, there, in memory from which a GPU can read. Other
        threads run meanwhile, also where the disk has to be waited for.

        Raises:
            IndexError: there is no such row.
        """
        flat = index.numpy().ravel()
        order = flat.argsort(kind="stable")
        sorted_ = flat[order]
        if len(flat) and (sorted_[0] < 0 or sorted_[-1] >= len(self)):
            raise IndexError(f"rows {sorted_[0]} to {sorted_[-1]} of a table of {len(self)}")
        found = torch.empty(len(flat), self.width, dtype=self.dtype)
        ends = np.searchsorted(sorted_, self._starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():  # `take` lets other threads run
            part = slice(ends[number], ends[number + 1])
            at, rows = sorted_[part] - self._starts[number], found.numpy()[part]
            self._request(number, at)
            self._blocks[number].take(at, axis=0, out=rows, mode="clip")
        placed = self._empty(len(flat)).index_copy_(0, torch.from_numpy(order), found)
        return placed.view(*index.shape, self.width)

    def _request(self, number: int, rows: np.ndarray) -> None:
        """Let the disk find these rows of a block at the same time, not one after the other."""
        size = self.width * self.dtype.itemsize
        for address in (self._addresses[number] + rows * size).tolist():
            _advise(address, size, "MADV_WILLNEED")

    def _slice(self, rows: slice) -> Tensor:
        at, end, _ = rows.indices(len(self))
        parts = []
        while at < end:
            number = int(np.searchsorted(self._starts, at, side="right")) - 1
            first = at - int(self._starts[number])
            parts.append(torch.from_numpy(self._blocks[number][first : first + end - at]))
            at += len(parts[-1])
        return self._sent(parts[0] if len(parts) == 1 else torch.cat([self._empty(0), *parts]))

    def _sent(self, rows: Tensor) -> Tensor:
        return rows.to(self.device, non_blocking=True)

    def _empty(self, rows: int) -> Tensor:
        pinned = self.device.type == "cuda"
        return torch.empty(rows, self.width, dtype=self.dtype, pin_memory=pinned)


def _advise(address: int, size: int, advice: str) -> None:
    """Tell the system how mapped memory will be read; nothing where it cannot be told."""
    if _LIBC is not None and size:
        start = address - address % mmap.PAGESIZE
        _LIBC.madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(address + size - start), _ADVICE[advice]
        )


_ADVICE = {name: getattr(mmap, name, 0) for name in ("MADV_RANDOM", "MADV_WILLNEED")}
_LIBC = ctypes.CDLL(None) if all(_ADVICE.values()) else None


class CodedTable:
    """Rows that are stored another way, on the device or in mapped files: read, then unpacked."""

    def __init__(self, stored: Tensor | MappedTable, unpack: Callable[[Tensor], Tensor]) -> None:
        self.stored, self._unpack = stored, unpack

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def device(self) -> torch.device:
        return self.stored.device

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Rows [..., W], float32, of an index or a slice without a step."""
        return self._unpack(self.stored[rows])


Table = Tensor | MappedTable | CodedTable


def mapped_part(table: Table | None) -> MappedTable | None:
    """What of a table is read from mapped files."""
    stored = table.stored if isinstance(table, CodedTable) else table
    return stored if isinstance(stored, MappedTable) else None


class Filling:
    """A table of `rows` rows that is filled from its start: on a device or, with a `folder`, in a
    mapped file there, which has no name and is gone with the process."""

    def __init__(
        self,
        rows: int,
        device: torch.device,
        folder: Path | None = None,
        dtype: torch.dtype = torch.half,
    ) -> None:
        self._rows, self._device, self._folder, self._dtype = rows, device, folder, dtype
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

    def filled(self, parts: Iterable[Tensor]) -> Tensor | MappedTable:
        """The whole table, of these parts."""
        for part in parts:
            self.add(part)
        return self.table()

    def table(self) -> Tensor | MappedTable:
        """The whole table. Raises ValueError where rows are missing."""
        if self._held is None or self._filled != self._rows:
            raise ValueError(f"a table of {self._filled} rows, not {self._rows}")
        if self._folder is None:
            return self._held
        return MappedTable([self._held], self._device)

    def _new(self, width: int) -> Tensor:
        if self._folder is None:
            return torch.empty(self._rows, width, dtype=self._dtype, device=self._device)
        return _mapped_file(self._folder, self._rows, width, self._dtype)


def _mapped_file(folder: Path, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Room for a table, [R, W], in a file whose name is deleted at once."""
    folder.mkdir(parents=True, exist_ok=True)
    size = rows * width * dtype.itemsize
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
        flat = torch.from_file(file.name, shared=True, size=rows * width, dtype=dtype)
    return flat.view(rows, width)
