"""The run folder that counts readings of the test split by a weights file: by its tensors, so that
another name, format or type of the file starts no new count."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.evaluation.lookup import STAGES
from pipeline.identity import KEY_LENGTH
from pipeline.storage.run_store import RunFolder, Store


def counter_of(weights: dict[str, Tensor], file_digest: str, store: Store) -> RunFolder:
    """The folder of the run of the store whose weights these are, else one named after them.
    `weights` are under the names and types of the network; counts of an older version went by
    the file's digest, and go on."""
    numbers = {name: value for name, value in weights.items() if value.is_floating_point()}
    for folder in store.runs():
        files = folder.path.glob("*.safetensors") if folder.stage in STAGES else ()
        if any(_holds(path, numbers) for path in sorted(files)):
            return folder
    older = store.run("file", file_digest[:KEY_LENGTH])
    return older if older.path.is_dir() else store.run("file", _digest(numbers)[:KEY_LENGTH])


def _holds(path: Path, weights: dict[str, Tensor]) -> bool:
    """Whether a file holds these tensors, bit for bit; the smallest are compared first."""
    try:
        with safe_open(path, "pt") as file:
            if not weights.keys() <= set(file.keys()):
                return False
            return all(
                torch.equal(file.get_tensor(name).to(weights[name].dtype), weights[name])
                for name in sorted(weights, key=lambda name: weights[name].numel())
            )
    except (SafetensorError, OSError):
        return False  # damaged: no one can have copied it


def _digest(weights: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].contiguous()
        found.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
