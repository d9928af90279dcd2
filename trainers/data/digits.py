"""digits: scikit-learn's 1,797 handwritten digits, the embedded default."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from trainers.data.base import DataConfig, DataMissing, Raw, stratified


def read(config: DataConfig) -> Raw:
    """8 px upscaled to `data.image_size`, fixed stratified 20 % test."""
    table = _table()
    small = torch.from_numpy(table[:, :64]).float().view(-1, 1, 8, 8) * (255 / 16)
    size = (config.image_size, config.image_size)
    large = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    pixels = large.round().clamp(0, 255).to(torch.uint8).numpy()
    labels = table[:, 64].astype(np.int64)
    rest, test = stratified(labels, 0.2, "digits/test")
    names = tuple(str(d) for d in range(10))
    return Raw(pixels[rest], labels[rest], pixels[test], labels[test], names)


def _table() -> np.ndarray:
    """64 pixels (0..16) and a label a row, from the file in the scikit-learn package: importing
    the package for it takes longer than everything else that a reused run does."""
    spec = importlib.util.find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(places or []), "")) / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataMissing(
            f"data set digits is missing: no {file}; it comes with the package scikit-learn"
        )
    with gzip.open(file, "rt") as text:
        return np.loadtxt(text, delimiter=",")
