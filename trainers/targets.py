"""Targets and per-sample weights of the student, each for a clean source image.

They are computed per source image with its own label at τ = 1 and mixed afterwards, because
mixing would otherwise look like uncertainty. Shapes: B examples, C classes, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from trainers import losses
from trainers.mixing import Mix, Shown


def average_logits(teachers_KBC: Tensor, weights: list[float] | None) -> Tensor:
    """Σ_k w_k t_k with weights that sum to 1 (equal where None). Shape [B, C]."""
    raw = tuple(weights or [1.0] * len(teachers_KBC))
    return weighted_logits(teachers_KBC, _shares(raw, teachers_KBC.dtype, teachers_KBC.device))


@lru_cache(maxsize=64)
def _shares(raw: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights that sum to 1, [K, 1]: sent to the device once, because sending makes a step wait."""
    weights = torch.tensor(raw, dtype=torch.float64)
    return (weights / weights.sum()).to(device, dtype)[:, None]


def weighted_logits(teachers_KBC: Tensor, share_KB: Tensor) -> Tensor:
    """Σ_k w_k t_k for shares of every sample, [K, B] or [K, 1]. Shape [B, C]."""
    return (share_KB[:, :, None] * teachers_KBC).sum(0)


def prefer_synergy(synergy_BC: Tensor, average_BC: Tensor, labels: Shown) -> Tensor:
    """Where the synergy logits have the lower cross-entropy with the labels that the image shows;
    ties go to the average. [B] bool."""

    def distance(logits_BC: Tensor) -> Tensor:
        return labels.over(lambda label_B: losses.cross_entropy(logits_BC, label_B))

    return distance(synergy_BC) < distance(average_BC)


def certainty(logvar_BD: Tensor) -> Tensor:
    """mean_j exp(-ℓ_j), the mean precision of the latent. Shape B."""
    return (-logvar_BD).exp().mean(1).detach()


def certainty_weight(certainty_B: Tensor, low: float, high: float) -> Tensor:
    """Certainty over its batch mean, clamped to [low, high]. Shape B."""
    return (certainty_B / certainty_B.mean()).clamp(low, high)


def uncertainty_weight(logits_BC: Tensor, strength: float, floor: float) -> Tensor:
    """1 / (1 + b·H/ln C) with the entropy of SM(logits) at τ = 1, floored. Shape B."""
    relative = losses.entropy(logits_BC) / math.log(logits_BC.shape[1])
    return (1 / (1 + strength * relative)).clamp_min(floor)


def soft_labels(labels_B: Tensor, classes: int, smoothing: float, mix: Mix) -> Tensor:
    """Smoothed one-hot labels of the mixed images, [B, C] float32."""
    off = smoothing / classes
    hot = torch.full((len(labels_B), classes), off, device=labels_B.device)
    hot.scatter_(1, labels_B[:, None], 1 - smoothing + off)
    return mix.blend(hot)


def soft_cross_entropy(logits_BC: Tensor, target_BC: Tensor) -> Tensor:
    """-Σ_c q_c log p_c for soft labels. Shape B."""
    return -(target_BC * torch.log_softmax(losses.wide(logits_BC), dim=-1)).sum(-1)


def label_loss(logits_BC: Tensor, labels_L: Tensor, smoothing: float, mix: Mix) -> Tensor:
    """Mean cross-entropy of the images with a label, the first L of the batch, with their smoothed
    labels, mixed as they are. Scalar."""
    count = len(labels_L)
    labels_LC = soft_labels(labels_L, logits_BC.shape[1], smoothing, mix.of_first(count))
    return soft_cross_entropy(first_of(logits_BC, count), labels_LC).mean()


def first_of(value_B: Tensor, count: int) -> Tensor:
    """The first of a batch; the tensor itself where that is all of it, as the gradient of a part
    takes calls of its own."""
    return value_B if len(value_B) == count else value_B[:count]


def target_classes(labels_L: Tensor, target_BC: Tensor, mix: Mix) -> tuple[Tensor, Tensor | None]:
    """The class that decoupled losses take for the target, of both sources of mixed images (None:
    unmixed): the label, and of an image without one the largest of its target. [B] each."""
    partner = mix.of_first(len(labels_L)).partner
    known = [labels_L] if partner is None else [labels_L, labels_L[partner]]
    if len(labels_L) < len(target_BC):
        guess = target_BC[len(labels_L) :].argmax(1)
        known = [torch.cat([one, guess]) for one in known]
    return known[0], known[1] if len(known) > 1 else None


def all_of_batch(value_L: Tensor, count: int, value: float) -> Tensor:
    """Values of the images with a label, and one `value` for the others of the batch. [B]."""
    others = count - len(value_L)
    return torch.cat([value_L, value_L.new_full((others,), value)]) if others else value_L


def logits_of(probs_BC: Tensor, temperature: float) -> Tensor:
    """τ·log q, for losses that want logits: SM(τ·log q / τ) is q. Shape [B, C]."""
    return temperature * losses.wide(probs_BC).clamp_min(torch.finfo(torch.float32).tiny).log()


def apart(teachers_KBC: Tensor, labels_B: Tensor, mode: str) -> Tensor:
    """Where the teachers' top-1 differ (`pred`), or none of them is right (`both_wrong`). [B]."""
    choice_KB = teachers_KBC.argmax(-1)
    if mode == "both_wrong":
        return (choice_KB != labels_B).all(0)
    return (choice_KB != choice_KB[:1]).any(0)


def confidence_shares(teachers_KBC: Tensor, temperature: float = 1.0) -> Tensor:
    """Shares of K teachers in a sample, in proportion to their largest probability. [K, B],
    summing to 1 over K."""
    largest_KB = torch.softmax(losses.wide(teachers_KBC) / temperature, -1).amax(-1)
    return largest_KB / largest_KB.sum(0)


def entropy_shares(teachers_KBC: Tensor) -> Tensor:
    """Shares of K teachers in a sample, in proportion to ln C - H, what they know of it. [K, B],
    summing to 1 over K; equal where none knows anything."""
    classes = teachers_KBC.shape[-1]
    entropy_KB = torch.stack([losses.entropy(one) for one in teachers_KBC])
    known_KB = (math.log(classes) - entropy_KB).clamp_min(1e-6)
    return known_KB / known_KB.sum(0)


def disagreement(teachers_KBC: Tensor) -> Tensor:
    """Share of the batch on which the teachers' top-1 are not all the same. Scalar."""
    choice_KB = teachers_KBC.argmax(-1)
    return (choice_KB != choice_KB[:1]).any(0).float().mean()


SHARES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy_shares,
    "confidence": confidence_shares,
}


def combined_logits(teachers_KBC: Tensor, weighting: str) -> Tensor:
    """Σ_k w_k t_k with the shares of `SHARES[weighting]`; equal shares for every other name. Shape
    [B, C]."""
    if weighting not in SHARES or len(teachers_KBC) == 1:
        return average_logits(teachers_KBC, None)
    return weighted_logits(teachers_KBC, SHARES[weighting](teachers_KBC))
