"""Placebos: the same compute as a rung, with information taken out of it.

What is taken is fixed by the seed and the stage, and is the same whether the networks' outputs are
read from tables or computed live. Shapes: N images, R rows (images × views, image-major), B a
batch, C classes, K teachers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainers.distillation.state import StepInputs
from trainers.methods.alternating import AlternatingMethod
from trainers.methods.base import Method
from trainers.rng import generator
from trainers.tables import Filling, Table
from trainers.view_bank import ViewOutputs

TEACHERS, TOKENS, IMAGE, CLASS, BY_LABEL = "teachers", "tokens", "image", "class", "image_by_label"
CHUNK = 65536  # rows shuffled at once


class Placebo:
    """A placebo of one stage: from which other row each row gets the fusion's output (`image`,
    `class`, `image_by_label`) or its teachers' tokens (`tokens`), or how its teachers' non-target
    logits are shuffled (`teachers`)."""

    def __init__(self, kind: str, inputs: StepInputs, stage: int) -> None:
        views, draw = inputs.views, generator(inputs.config.seed, "placebo", stage)
        labels, classes, more = views.images.labels, inputs.config.data.classes, views.unlabelled
        self.kind = kind
        self.order: Table | None = None
        if kind in (TEACHERS, CLASS) and more is not None:
            raise ValueError(f"placebo {kind} needs the label of every image")
        if kind == TEACHERS:
            table = Filling(views.rows, views.device, inputs.table_folder, torch.short)
            self.order = table.filled(orders(views.rows, classes, draw))
        elif kind == CLASS:
            self._other = others_of_class(labels.cpu(), views.count, draw).to(views.device)
        else:
            other = other_images(len(labels), views.count, draw)
            if more is not None:  # another image of the same kind
                rest = other_images(len(more.pixels), views.count, draw)
                other = torch.cat([other, len(other) + rest])
            self._other = other.to(views.device)

    def other(self, row_B: Tensor) -> Tensor:
        """For each row that of another image, of the same view. Shape [B]."""
        return self._other[row_B]

    def shuffled(self, logits_KBC: Tensor, label_B: Tensor, row_B: Tensor) -> Tensor:
        """The logits with those of wrong classes shuffled. Shape [K, B, C]."""
        assert self.order is not None
        return shuffled_rest(logits_KBC, label_B, self.order[row_B].long())


def of_stage(inputs: StepInputs, method: Method, stage: int) -> Placebo | None:
    """The placebo of a stage; None: the method has none."""
    if not isinstance(method, AlternatingMethod) or method.placebo == "none":
        return None
    return Placebo(method.placebo, inputs, stage)


def of_validation(
    inputs: StepInputs, method: Method, stage: int, teachers: list[ViewOutputs]
) -> list[ViewOutputs]:
    """Outputs of the teachers on the validation images, as the fusion sees them in a stage."""
    if not isinstance(method, AlternatingMethod) or method.placebo != TOKENS:
        return teachers
    draw = generator(inputs.config.seed, "placebo", "validation", stage)
    other_M = other_images(len(inputs.data.val.labels), 1, draw)
    return with_tokens(teachers, other_M.to(inputs.device))


def with_tokens(teachers: list[ViewOutputs], other_R: Tensor) -> list[ViewOutputs]:
    """Outputs whose features, the fusion's tokens, are of other rows."""
    return [ViewOutputs(one.logits, one.pooled[other_R]) for one in teachers]


def other_images(images: int, views: int, draw: torch.Generator) -> Tensor:
    """For every row the row of another image, of the same view: a permutation of the images
    without a fixed point. Shape [R] int64, on the CPU.
    """
    order = torch.randperm(images, generator=draw)
    source = torch.empty_like(order)
    source[order] = order.roll(1)  # one cycle through all images
    return _rows(source, views)


def others_of_class(labels_N: Tensor, views: int, draw: torch.Generator) -> Tensor:
    """The same within each class: one cycle through its images. Shape [R] int64, on the CPU.

    Raises:
        ValueError: a class has one image.
    """
    count_C = labels_N.bincount()
    alone = (count_C == 1).nonzero().flatten().tolist()
    if alone:
        raise ValueError(f"no other image of class {alone[0]}: it has one training image")
    order = torch.randperm(len(labels_N), generator=draw)
    order = order[labels_N[order].argsort(stable=True)]
    following = torch.arange(1, len(order) + 1)
    ends = count_C[count_C > 0].cumsum(0)
    following[ends - 1] = ends - count_C[count_C > 0]
    source = torch.empty_like(order)
    source[order] = order[following]
    return _rows(source, views)


def _rows(source_N: Tensor, views: int) -> Tensor:
    return (source_N[:, None] * views + torch.arange(views)).flatten()


def orders(rows: int, classes: int, draw: torch.Generator) -> Iterator[Tensor]:
    """An order of the wrong classes for every row, in parts [r, C - 1] int16 on the CPU."""
    for at in range(0, rows, CHUNK):
        some = min(CHUNK, rows - at)
        yield torch.rand(some, classes - 1, generator=draw).argsort(1).short()


def shuffled_rest(logits_KBC: Tensor, label_B: Tensor, order_BR: Tensor) -> Tensor:
    """The logits of wrong classes in that order; the label's logit stays. All K teachers are
    shuffled alike, so that their average is shuffled the same way. Shape [K, B, C]."""
    rest_R = torch.arange(order_BR.shape[1], device=label_B.device)
    rest_BR = rest_R + (rest_R >= label_B[:, None])
    to_KBR = rest_BR.expand(len(logits_KBC), -1, -1)
    from_KBR = rest_BR.gather(1, order_BR).expand_as(to_KBR)
    return logits_KBC.scatter(2, to_KBR, logits_KBC.gather(2, from_KBR))
