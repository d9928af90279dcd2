"""Which classes specialised teachers are trained on: some in common, the rest shared out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainers.rng import stream_seed
from trainers.schedules import even_split


def class_lists(classes: int, percent: int, teachers: int, seed: int) -> list[list[int]]:
    """The classes of each teacher, in rising order.

    The list of C classes is shuffled by the seed; its first m = ⌊C·percent/100⌋ are common to all
    teachers, the rest is split into parts that differ by at most one class, larger ones first.
    """
    draw = np.random.Generator(np.random.PCG64(stream_seed(seed, "overlap")))
    shuffled: list[int] = draw.permutation(classes).tolist()
    common = classes * percent // 100
    lengths = even_split(classes - common, teachers)
    ends = [common + sum(lengths[: k + 1]) for k in range(teachers)]
    parts = [shuffled[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return [sorted(shuffled[:common] + part) for part in parts]


def images_of(classes: list[int], labels_N: Tensor) -> Tensor:
    """Numbers of the images whose label is one of the classes, in order."""
    wanted = torch.tensor(classes, device=labels_N.device)
    return torch.isin(labels_N, wanted).nonzero()[:, 0]
