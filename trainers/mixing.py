"""Mixup and CutMix, and the plan of an epoch: its rows and mixes, sampled before it starts.

The plan is a pure function of (seed, B-Step epoch), drawn on the CPU and sent to the device
once, so that nothing in the loop waits and every rung at one seed sees the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainers.options import When, option, span
from trainers.rng import stream_seed

_mixes = When(
    "`mixup_alpha` or `cutmix_alpha` is above 0", lambda m: m.mixup_alpha > 0 or m.cutmix_alpha > 0
)


@dataclass
class MixConfig:
    """Mixing of the B-Step, the same for every rung and method of a bench."""

    mixup_alpha: float = option(0.2, "parameter a of Mixup's Beta(a, a); 0: no Mixup", low=0)
    cutmix_alpha: float = option(1.0, "parameter a of CutMix's Beta(a, a); 0: no CutMix", low=0)
    start: float = option(
        0.25,
        "B-Step epoch from which images are mixed, or a fraction of the budget below 1",
        low=0,
        when=_mixes,
    )
    stop: float | None = option(
        None,
        "first unmixed B-Step epoch at the end: epochs or fraction (null: none)",
        low=0,
        when=_mixes,
    )

    def active(self, epoch: int, total: int) -> bool:
        """Whether images are mixed in this epoch of `total`."""
        stop = total if self.stop is None else span(self.stop, total)
        return _mixes(self) and span(self.start, total) <= epoch < stop


class Mix(NamedTuple):
    """How one batch is mixed: image i with image partner[i], `lam` the share of image i.

    `box` = (top, bottom, left, right) of CutMix, None for Mixup. `partner` None: unmixed.
    """

    lam: float = 1.0
    partner: Tensor | None = None
    box: tuple[int, int, int, int] | None = None

    def blend(self, value_B: Tensor, partners_B: Tensor | None = None) -> Tensor:
        """λ·value + (1-λ)·value[partner]: mixes targets and per-sample weights. `partners`: the
        values of images as partners, where they differ."""
        if self.partner is None:
            return value_B
        other_B = value_B if partners_B is None else partners_B
        return torch.lerp(other_B[self.partner], value_B, self.lam)


UNMIXED = Mix()


class Shown(NamedTuple):
    """Labels that images show: of mixed ones a second, with the share `lam` of the first."""

    first_B: Tensor
    second_B: Tensor | None = None
    lam: float = 1.0

    def over(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """A value of every image for its label: of mixed images for both, λ-weighted. Shape B."""
        first_B = value(self.first_B)
        if self.second_B is None:
            return first_B
        return torch.lerp(value(self.second_B), first_B, self.lam)

    def at(self, index: Tensor | None) -> Shown:
        """Those of some of the images (None: all)."""
        if index is None:
            return self
        second = None if self.second_B is None else self.second_B[index]
        return Shown(self.first_B[index], second, self.lam)


def shown(labels_B: Tensor, mix: Mix) -> Shown:
    """The labels that the images of a batch show."""
    if mix.partner is None:
        return Shown(labels_B)
    return Shown(labels_B, labels_B[mix.partner], mix.lam)


def mix_images(images_BCHW: Tensor, mix: Mix) -> Tensor:
    """The batch as the student sees it."""
    if mix.partner is None:
        return images_BCHW
    other = images_BCHW[mix.partner]
    if mix.box is None:
        return torch.lerp(other, images_BCHW, mix.lam)
    top, bottom, left, right = mix.box
    mixed = images_BCHW.clone()
    mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return mixed


class EpochPlan(NamedTuple):
    """rows [steps, B] into the clean views, and one Mix a step."""

    rows: Tensor
    mixes: list[Mix]


def plan_epoch(
    seed: int,
    purpose: str,
    epoch: int,
    *,
    images: int,
    views: int,
    batch: int,
    mix: MixConfig | None,
    size: int,
    device: torch.device,
) -> EpochPlan:
    """Order, views and mixes of one epoch. Every image once; an incomplete last batch is left
    out (so a batch is never of one image) unless it is the only one.

    Order and views are streams of their own, so that switching mixing off changes neither.
    """
    batch = min(batch, images)
    steps = images // batch
    order = _numpy(seed, purpose, "order", epoch).permutation(images)[: steps * batch]
    view = _numpy(seed, purpose, "view", epoch).integers(views, size=images)[order]
    rows = torch.from_numpy((order * views + view).reshape(steps, batch)).to(device)
    if mix is None:
        return EpochPlan(rows, [UNMIXED] * steps)
    draw = _numpy(seed, purpose, "mix", epoch)
    partners = torch.from_numpy(np.stack([draw.permutation(batch) for _ in range(steps)]))
    on_device = partners.to(device)
    return EpochPlan(rows, [_draw_mix(draw, mix, on_device[i], size) for i in range(steps)])


def _numpy(seed: int, *purpose: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *purpose)))


def _draw_mix(draw: np.random.Generator, config: MixConfig, partner: Tensor, size: int) -> Mix:
    """Mixup or CutMix, each with probability ½ where both are on; λ is CutMix's true area."""
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    cut = draw.random() < 0.5 if both else config.cutmix_alpha > 0
    alpha = config.cutmix_alpha if cut else config.mixup_alpha
    lam = float(draw.beta(alpha, alpha))
    centre_y, centre_x = draw.integers(size, size=2).tolist()
    if not cut:
        return Mix(lam, partner)
    half = round(size * (1 - lam) ** 0.5) // 2
    top, bottom = max(0, centre_y - half), min(size, centre_y + half)
    left, right = max(0, centre_x - half), min(size, centre_x + half)
    area = (bottom - top) * (right - left)
    return Mix(1 - area / size**2, partner, (top, bottom, left, right))
