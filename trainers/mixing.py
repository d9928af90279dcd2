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
from trainers.step_index import Index, select

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

    `box` = (top, bottom, left, right) of CutMix, None for Mixup. `partner` None: unmixed. `lam` is
    a tensor where targets of many batches are made at once; in a CUDA graph `box` is one too (see
    `EpochPlan.boxes`).
    """

    lam: float | Tensor = 1.0
    partner: Tensor | None = None
    box: tuple[int, int, int, int] | Tensor | None = None

    def of_first(self, count: int) -> Mix:
        """The mix of the first images of the batch, whose partners are among them."""
        if self.partner is None or len(self.partner) == count:
            return self
        return self._replace(partner=self.partner[:count])

    def blend(self, value_B: Tensor, partners_B: Tensor | None = None) -> Tensor:
        """λ·value + (1-λ)·value[partner]: mixes targets and per-sample weights. `partners`: the
        values of images as partners, where they differ."""
        if self.partner is None:
            return value_B
        other_B = value_B if partners_B is None else partners_B
        return torch.lerp(other_B[self.partner], value_B, weight(self.lam))


UNMIXED = Mix()


def weight(share: float | Tensor) -> float | Tensor:
    """A share as `torch.lerp` takes it: float64, in which shares are calculated, it does not."""
    return share.float() if isinstance(share, Tensor) else share


class Shown(NamedTuple):
    """Labels that images show: of mixed ones a second, with the share `lam` of the first."""

    first_B: Tensor
    second_B: Tensor | None = None
    lam: float | Tensor = 1.0

    def over(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """A value of every image for its label: of mixed images for both, λ-weighted. Shape B."""
        first_B = value(self.first_B)
        if self.second_B is None:
            return first_B
        return torch.lerp(value(self.second_B), first_B, weight(self.lam))

    def at(self, index: Tensor | None) -> Shown:
        """Those of some of the images (None: all)."""
        if index is None:
            return self
        second = None if self.second_B is None else self.second_B[index]
        return Shown(self.first_B[index], second, self.lam)


def shown(labels_B: Tensor, mix: Mix) -> Shown:
    """The labels that the images of a batch show (its first ones, where only these have labels)."""
    partner = mix.of_first(len(labels_B)).partner
    if partner is None:
        return Shown(labels_B)
    return Shown(labels_B, labels_B[partner], mix.lam)


def mix_images(images_BCHW: Tensor, mix: Mix) -> Tensor:
    """The batch as the student sees it."""
    if mix.partner is None:
        return images_BCHW
    other = images_BCHW[mix.partner]
    if mix.box is None:
        return torch.lerp(other, images_BCHW, mix.lam)
    if isinstance(mix.box, Tensor):
        return torch.lerp(other, images_BCHW, _own_share(mix.box, *images_BCHW.shape[2:]))
    top, bottom, left, right = mix.box
    mixed = images_BCHW.clone()
    mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return mixed


def _own_share(box: Tensor, height: int, width: int) -> Tensor:
    """Share of the image itself in every pixel, by a row of `EpochPlan.boxes`. [H, W]."""
    top, bottom, left, right, share = box.float().unbind()
    y = torch.arange(height, device=box.device)[:, None]
    x = torch.arange(width, device=box.device)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(inside, share, 1.0)


class EpochPlan(NamedTuple):
    """rows [steps, B] into the clean views, and one Mix a step: their `partners` [steps, B] and
    `shares` [steps, 2] of both images, on the device too (None: unmixed). The first `labelled` rows
    of every batch are of images with a label, and mixed among themselves, as the others are.

    `boxes` [steps, 6] float64 has every `Mix` as numbers: λ, then top, bottom, left, right of the
    pixels that are mixed (of Mixup all) and the share of the image itself in these."""

    rows: Tensor
    mixes: list[Mix]
    labelled: int
    partners: Tensor | None = None
    shares: Tensor | None = None
    boxes: Tensor | None = None

    def mix(self, at: Index) -> Mix:
        """The mix of one step."""
        if isinstance(at, int):
            return self.mixes[at]
        if self.partners is None or self.boxes is None:
            return UNMIXED
        box = select(self.boxes, at)
        return Mix(box[0], select(self.partners, at), box[1:])

    def shown(self, labels_SL: Tensor) -> tuple[Tensor, Tensor]:
        """The labels that the images of every step show [S, X, L], and the shares of each [S, X]:
        one, or two where images are mixed."""
        if self.partners is None or self.shares is None:
            return labels_SL[:, None], torch.ones_like(labels_SL[:, :1], dtype=torch.float32)
        others_SL = labels_SL.gather(1, self.partners[:, : self.labelled])
        return torch.stack([labels_SL, others_SL], 1), self.shares


class BatchSizes(NamedTuple):
    """Images with a label and without one in every batch, and steps of an epoch."""

    labelled: int
    unlabelled: int
    steps: int


def batch_sizes(
    images: int, unlabelled: int, *, batch: int, share: float = 0.0, steps: int | None = None
) -> BatchSizes:
    """Of `images` with a label and others: `share` is that of the others in a batch (0: none).
    Without a number of steps an epoch is one pass over all images of both kinds."""
    others = 0
    if unlabelled and share:
        others = min(unlabelled, batch - 1, max(1, round(batch * share)))
    labelled = min(images, batch - others)
    return BatchSizes(labelled, others, steps or max(1, (images + unlabelled) // batch))


def plan_epoch(
    seed: int,
    purpose: str,
    epoch: int,
    *,
    images: int,
    views: int,
    sizes: BatchSizes,
    unlabelled: int = 0,
    mix: MixConfig | None,
    size: int,
    device: torch.device,
) -> EpochPlan:
    """Order, views and mixes of one epoch. Images of either kind come in passes, each in a new
    order; an incomplete last batch of a pass is left out (so no image is twice in a batch).

    Order and views are streams of their own, so that switching mixing off changes neither.
    """
    steps = sizes.steps

    def rows_of(count: int, batch: int, *kind: str) -> np.ndarray:
        """Rows [steps, batch] of the views of images 0 … count - 1."""
        whole = count // batch  # batches of a pass
        orders = _numpy(seed, purpose, "order", *kind, epoch)
        drawn = _numpy(seed, purpose, "view", *kind, epoch)
        found = []
        for _ in range(-(-steps // whole)):
            order = orders.permutation(count)[: whole * batch]
            found.append(order * views + drawn.integers(views, size=count)[order])
        return np.concatenate(found).reshape(-1, batch)[:steps]

    parts = [rows_of(images, sizes.labelled)]
    if sizes.unlabelled:
        others = rows_of(unlabelled, sizes.unlabelled, "unlabelled")
        parts.append(images * views + others)
    rows = torch.from_numpy(np.concatenate(parts, 1)).to(device)
    if mix is None:
        return EpochPlan(rows, [UNMIXED] * steps, sizes.labelled)
    draw, apart = (_numpy(seed, purpose, "mix", *kind, epoch) for kind in ((), ("unlabelled",)))
    partners = np.stack([draw.permutation(sizes.labelled) for _ in range(steps)])
    if sizes.unlabelled:
        more = np.stack([apart.permutation(sizes.unlabelled) for _ in range(steps)])
        partners = np.concatenate([partners, sizes.labelled + more], 1)
    on_device = torch.from_numpy(partners).to(device)
    mixes = [_draw_mix(draw, mix, on_device[i], size) for i in range(steps)]
    shares = torch.tensor([[one.lam, 1 - one.lam] for one in mixes]).to(device)
    return EpochPlan(rows, mixes, sizes.labelled, on_device, shares, _boxes(mixes, size, device))


def _boxes(mixes: list[Mix], size: int, device: torch.device) -> Tensor:
    found = [
        (one.lam, 0, size, 0, size, one.lam) if one.box is None else (one.lam, *one.box, 0.0)
        for one in mixes
    ]
    return torch.tensor(found, dtype=torch.float64).to(device)


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
