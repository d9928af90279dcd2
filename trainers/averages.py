"""Exponential moving averages: of a number, of a network."""

from __future__ import annotations

from itertools import compress

import torch
from torch import nn


def moving_average(old: float | None, new: float, decay: float) -> float:
    """decay·old + (1 - decay)·new; `new` where there is no old value."""
    return new if old is None else decay * old + (1 - decay) * new


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay·average + (1 - decay)·model, BatchNorm's statistics included; integer
    counters are copied."""
    old, new = (list(one.state_dict().values()) for one in (average, model))
    moved = [tensor.is_floating_point() for tensor in old]
    torch._foreach_lerp_(list(compress(old, moved)), list(compress(new, moved)), 1 - decay)
    if not all(moved):
        counters = [not one for one in moved]
        torch._foreach_copy_(list(compress(old, counters)), list(compress(new, counters)))
