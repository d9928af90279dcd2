"""Placebos: the same compute as a rung, with the information taken out of it.

Shapes: R rows (images × views, image-major), C classes, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 65536  # rows shuffled at once


def other_images(images: int, views: int, draw: torch.Generator) -> Tensor:
    """For every row the row of another image, of the same view: a permutation of the images
    without a fixed point. Shape [R] int64, on the CPU.
    """
    order = torch.randperm(images, generator=draw)
    source = torch.empty_like(order)
    source[order] = order.roll(1)  # one cycle through all images
    return (source[:, None] * views + torch.arange(views)).flatten()


def shuffled_rest(logits: list[Tensor], labels_R: Tensor, draw: torch.Generator) -> list[Tensor]:
    """Each row's non-target logits, shuffled among the other classes; the label's logit stays.

    All K tables [R, C] are shuffled alike, so that their average is shuffled the same way.
    """
    shuffled = [torch.empty_like(table) for table in logits]
    for at in range(0, len(labels_R), CHUNK):
        part = slice(at, at + CHUNK)
        keep = torch.ones_like(logits[0][part], dtype=torch.bool)
        keep.scatter_(1, labels_R[part, None], False)
        rows, rest = len(keep), keep.shape[1] - 1
        order = torch.rand(rows, rest, generator=draw).argsort(1).to(keep.device)
        for table, out in zip(logits, shuffled, strict=True):
            mixed = table[part].clone()
            mixed[keep] = table[part][keep].view(rows, rest).gather(1, order).flatten()
            out[part] = mixed
    return shuffled
