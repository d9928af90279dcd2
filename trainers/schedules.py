"""Schedules in closed form: learning rates, weights, splits of a budget.

B-Step epochs count from 0 over all stages; so do A-Step epochs, on their own. Lengths are
epochs, or fractions of the budget below 1 (`options.span`).
"""

from __future__ import annotations

import math


def even_split(total: int, parts: int) -> list[int]:
    """`total` epochs in `parts` whole numbers that differ by at most one, larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def cosine_lr(step: int, total: int, *, base: float, floor: float, warmup: float) -> float:
    """Learning rate of optimiser step `step` of `total`.

    Linear from base/W to base over W = round(warmup) steps, then half a cosine that meets
    `floor` at the last step (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
    """
    warm = min(round(warmup), total - 1)
    if step < warm:
        return base * (step + 1) / warm
    progress = (step - warm) / max(1, total - 1 - warm)
    return floor + (base - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def step_lr(epoch: float, milestones: list[float], *, base: float, factor: float) -> float:
    """base·factor^(milestones passed): the schedule of the public tables on CIFAR-100 (Tian et
    al. 2020, arXiv 1910.10699)."""
    return base * factor ** sum(epoch >= milestone for milestone in milestones)


def ramp(epoch: int, length: float) -> float:
    """Linear rise that reaches 1 in epoch `length` - 1 (1 at once where length is 0)."""
    return min(1.0, (epoch + 1) / length) if length > 0 else 1.0


def rise_from_zero(epoch: int, length: float) -> float:
    """0 in epoch 0, 1 from epoch `length` on."""
    return min(1.0, epoch / length) if length > 0 else 1.0


def cooldown(epoch: int, total: int, length: float) -> float:
    """1 until the last `length` epochs, then linear to 0 in the last epoch."""
    return min(1.0, (total - 1 - epoch) / length) if length > 0 else 1.0


def kd_weight(epoch: int, total: int, *, alpha: float, warmup: float, cool: float) -> float:
    """kd_eff(e) = α·min(1, (e+1)/warmup)·cooldown, e counted over all stages."""
    return alpha * ramp(epoch, warmup) * cooldown(epoch, total, cool)
