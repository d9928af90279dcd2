"""Checkpoint files: what one may hold, and how it is read without running anything."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.storage.atomic import CorruptFile, verify
from pipeline.storage.run_record import HistoryEntry

# Types that torch.load(weights_only=True) always reads back, apart from tensors.
_MAPPINGS = (dict, OrderedDict)
_SEQUENCES = (list, tuple)
_SCALARS = frozenset((bool, int, float, str, type(None)))


class Commit(NamedTuple):
    """A checkpoint: a state to resume from, and one record for each epoch that led to it."""

    number: int
    state: dict[str, Any]
    history: list[HistoryEntry]


def check_loadable(value: Any, where: str) -> None:
    """Raises TypeError, with the place, for a value that a checkpoint might not give back.

    Types must match exactly: numpy's float64 is a float too, but is pickled as code of numpy's.
    """
    if type(value) in _MAPPINGS:
        for key, item in value.items():
            if type(key) not in _SCALARS:
                raise TypeError(f"{where} has a key of type {type(key).__name__}: {key!r}")
            if type(item) not in _SCALARS:  # most are: no call and no text for each of them
                check_loadable(item, f"{where}[{key!r}]")
    elif type(value) in _SEQUENCES:
        for index, item in enumerate(value):
            check_loadable(item, f"{where}[{index}]")
    elif not isinstance(value, Tensor) and type(value) not in _SCALARS:
        raise TypeError(f"{where} is of type {type(value).__name__}, which no checkpoint can hold")


def load_commit(path: Path) -> Commit:
    """Loads a checkpoint. Raises CorruptFile, or OSError, of which FileNotFoundError.

    The sha256 finds accidents, not malice, so no code in the file is run. Errors that do not come
    from the file pass through: a good checkpoint is not set aside because memory was short.
    """
    if path.is_dir():
        raise CorruptFile(f"{path} is a folder")
    with open(path, "rb") as file:  # opened once, so that it can be deleted meanwhile
        verify(path, file, path.name.split(".")[2])
        # Anything else torch would take for its old format, and fail in many ways.
        if not _is_torch_file(file):
            raise CorruptFile(f"{path} is corrupt: not a file of torch.save")
        file.seek(0)
        try:
            payload = torch.load(file, weights_only=True, map_location="cpu")
            return Commit(number_of(path), payload["state"], payload["history"])
        except (pickle.UnpicklingError, KeyError, TypeError) as error:
            raise CorruptFile(f"{path} is corrupt: {error}") from error


def _is_torch_file(file: BufferedReader) -> bool:
    try:
        entries = {name.rpartition("/")[2] for name in zipfile.ZipFile(file).namelist()}
    except zipfile.BadZipFile:
        return False
    return {"data.pkl", "version"} <= entries


def number_of(path: Path) -> int:
    """The number of a checkpoint's file."""
    return int(path.name.split(".")[0].removeprefix("commit-"))
