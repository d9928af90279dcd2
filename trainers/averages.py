"""Exponential moving averages: of a number, of a network."""

from __future__ import annotations

import torch
from torch import nn


def moving_average(old: float | None, new: float, decay: float) -> float:
    """decay·old + (1 - decay)·new; `new` where there is no old value."""
    return new if old is None else decay * old + (1 - decay) * new


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay·average + (1 - decay)·model, BatchNorm's statistics included; integer
    counters are copied."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
