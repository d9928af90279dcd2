"""Stacking: a multinomial regression on what all teachers say of an image (Wolpert 1992, Stacked
Generalization). It is the plain way to fuse teachers, and the control of a learned fusion.

Shapes: N training rows, M validation images, D features of all teachers together, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # strongest first: the first of equals is kept
STEPS = 200  # of L-BFGS, at most, for one penalty


class Stack(NamedTuple):
    """The regression: weight [C, D], bias [C], float32; the penalty that validation chose, and the
    validation accuracy and cross-entropy."""

    weight: Tensor
    bias: Tensor
    penalty: float
    val_top1: float
    val_loss: float

    def logits(self, features_ND: Tensor) -> Tensor:
        """[N, C]."""
        return functional.linear(features_ND.float(), self.weight, self.bias)


def stacked(features: list[Tensor]) -> Tensor:
    """The features [N, D_k] of all teachers side by side, [N, D]."""
    return torch.cat([one.float() for one in features], -1)


def fit(
    features_ND: Tensor,
    labels_N: Tensor,
    val_MD: Tensor,
    val_labels_M: Tensor,
    classes: int,
    steps: int = STEPS,
) -> Stack:
    """The regression that minimises mean cross-entropy + penalty/2·‖W‖² on standardised features,
    with the penalty of the lowest validation cross-entropy; `steps`: at most, for each penalty. The
    same numbers give the same fit.

    Raises:
        ValueError: there are no validation images to choose the penalty by.
    """
    if not len(val_labels_M):
        raise ValueError("no validation images to choose the penalty of the stack by")
    mean_D = features_ND.double().mean(0)
    spread_D = features_ND.double().std(0, correction=0)
    scale_D = torch.where(spread_D > 1e-6, 1 / spread_D.clamp_min(1e-6), 0.0)
    x_ND, val = ((one.double() - mean_D) * scale_D for one in (features_ND, val_MD))
    weight = x_ND.new_zeros(classes, x_ND.shape[1])
    bias, best = x_ND.new_zeros(classes), None
    for penalty in PENALTIES:  # each starts from the one before
        weight, bias = _minimum(x_ND, labels_N, weight, bias, penalty, steps)
        logits_MC = functional.linear(val, weight, bias)
        loss = float(functional.cross_entropy(logits_MC, val_labels_M))
        if best is None or loss < best.val_loss:
            top1 = float((logits_MC.argmax(1) == val_labels_M).double().mean())
            raw = weight * scale_D
            best = Stack(raw.float(), (bias - raw @ mean_D).float(), penalty, top1, loss)
    assert best is not None
    return best


def _minimum(
    x_ND: Tensor, labels_N: Tensor, weight: Tensor, bias: Tensor, penalty: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the smallest penalised cross-entropy, by L-BFGS."""
    weight, bias = (one.clone().requires_grad_() for one in (weight, bias))
    search = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        with torch.enable_grad():
            found = functional.cross_entropy(functional.linear(x_ND, weight, bias), labels_N)
            found = found + penalty / 2 * weight.square().sum()
        found.backward()
        return found

    search.step(loss)
    return weight.detach(), bias.detach()
