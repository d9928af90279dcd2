"""The information plane of a fusion module, measured on validation images, in nats.

Shapes: M validation images, D latent width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trainers import losses, metrics
from trainers.bottleneck import Bottleneck
from trainers.loop import evaluating
from trainers.methods.alternating import AlternatingMethod
from trainers.rng import generator
from trainers.view_bank import ViewOutputs

SAMPLES = 8  # of z for each image


@torch.no_grad()
def information(
    method: AlternatingMethod,
    student: ViewOutputs,
    teachers: list[ViewOutputs],
    labels_M: Tensor,
    stream: tuple[int, ...],
    *,
    which: list[int] | None = None,
) -> dict[str, float]:
    """Rate R ≥ I(Z;X), and H(Y) and the cross-entropy CE of g(z), with H(Y) − CE ≤ I(Z;Y).

    CE is unsmoothed and unweighted, its mean taken over `SAMPLES` draws of z for every image
    (Alemi et al. 2018, arXiv 1711.00464). `stream`: the seed and position that the draws belong
    to; they are their own, so training draws the same with and without this. Without a
    bottleneck there is no rate: an empty dict. Of several fusions it is the mean of each one's.
    """
    with evaluating(method):
        found = [_of_one(one, student, teachers, labels_M, stream, which) for one in method.members]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def _of_one(
    method: AlternatingMethod,
    student: ViewOutputs,
    teachers: list[ViewOutputs],
    labels_M: Tensor,
    stream: tuple[int, ...],
    which: list[int] | None,
) -> dict[str, float]:
    latent = method.fuse(student.pooled.float(), [t.pooled.float() for t in teachers], which=which)
    if latent.logvar is None:
        return {}
    each = [t.logits.float() for t in teachers]
    logits = partial(method.synergy_logits, teachers=each, which=which)
    return {
        metrics.VAL_RATE: float(losses.gaussian_rate(latent.mu, latent.logvar).mean()),
        metrics.VAL_CE: sampled_cross_entropy(logits, latent, labels_M, stream),
        metrics.LABEL_ENTROPY: label_entropy(labels_M),
    }


def sampled_cross_entropy(
    logits: Callable[[Tensor], Tensor],
    latent: Bottleneck,
    labels_M: Tensor,
    stream: tuple[int, ...],
) -> float:
    """Mean cross-entropy of the `logits` of z over `SAMPLES` draws of z."""
    assert latent.logvar is not None
    mu_MD, sigma_MD = latent.mu, (latent.logvar / 2).exp()
    seed, *position = stream
    draws, total = generator(seed, "information", *position), 0.0
    for _ in range(SAMPLES):
        noise_MD = torch.randn(mu_MD.shape, generator=draws).to(mu_MD.device)
        logits_MC = logits(mu_MD + sigma_MD * noise_MD)
        total += float(losses.cross_entropy(logits_MC, labels_M).mean())
    return total / SAMPLES


def label_entropy(labels_M: Tensor) -> float:
    """H(Y) of the labels' own frequencies, in nats."""
    share_C = labels_M.bincount().double() / len(labels_M)
    return float(-(share_C * share_C.clamp_min(1e-300).log()).sum())
