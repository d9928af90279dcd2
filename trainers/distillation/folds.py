"""Cross-fitting: labelled images in folds, each left out of the training of one fusion.

The fusion of a fold learns from the images of all others, so it has not seen the images of its own
fold. Shapes: N images, the labelled ones first, F folds, S steps, B a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainers.distillation.state import StepInputs
from trainers.methods.alternating import alternating
from trainers.methods.base import Method
from trainers.rng import generator


class Folds:
    """The folds of a run, the same in every stage."""

    def __init__(self, inputs: StepInputs, count: int) -> None:
        labels, views = inputs.data.train.labels.cpu(), inputs.views
        self._views, self._count = views.count, count
        self._fold = assigned(labels, count, generator(inputs.config.seed, "folds"))
        others = views.total - views.labelled
        share_FN = functional.one_hot(self._fold, count).T.float()
        share_FN = torch.cat([share_FN, torch.full((count, others), 1 / count)], 1)
        self._share = share_FN.to(inputs.device)

    def share(self, row_B: Tensor) -> Tensor:
        """The share of every fusion in the logits of these rows, [F, B]: of a labelled image the
        fusion of its fold has all; of an unlabelled image all have the same."""
        return self._share[:, row_B // self._views]

    def batches(self, row_SB: Tensor) -> list[tuple[int, Tensor]]:
        """(number of a fusion, rows it learns from) in the order of training: from every batch each
        fusion in turn, without the images of its own fold. One wait."""
        fold_SB = self._fold[row_SB.cpu() // self._views]
        width = fold_SB.shape[1]
        kept = [
            (k, step * width + (fold_B != k).nonzero().flatten())
            for step, fold_B in enumerate(fold_SB)
            for k in range(self._count)
        ]
        kept = [(k, at) for k, at in kept if len(at)]
        index = torch.cat([at for _, at in kept]).to(row_SB.device)
        rows = row_SB.flatten()[index].split([len(at) for _, at in kept])
        return [(k, part) for (k, _), part in zip(kept, rows, strict=True)]


def of_run(inputs: StepInputs, method: Method) -> Folds | None:
    """The folds of a run; None: one fusion learns from all images."""
    fusing = alternating(method)
    count = len(fusing.members) if fusing else 1
    return Folds(inputs, count) if count > 1 else None


def assigned(labels_N: Tensor, folds: int, draw: torch.Generator) -> Tensor:
    """The fold of every image: the images of a class are dealt out in random order, so that folds
    differ by at most one image, in all and of every class. [N] int64."""
    order = torch.randperm(len(labels_N), generator=draw)
    order = order[labels_N[order].argsort(stable=True)]
    fold_N = torch.empty_like(order)
    fold_N[order] = torch.arange(len(order)) % folds
    return fold_N
