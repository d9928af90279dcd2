"""Quality and cost of a finished network: measures of its logits, parameters and speed.

Shapes: M images, C classes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import losses
from trainers.loop import top1
from trainers.models import outputs
from trainers.numerics import Numerics

ECE_BINS = 15
SPEED_BATCH = 128
_WARM_UP, _REPEATS, _ENOUGH_S = 3, (5, 30), 3.0


def classification(logits_MC: Tensor, labels_M: Tensor) -> dict[str, float]:
    """top1, nll (nats), ece and, where there are more than five classes, top5."""
    best = logits_MC.topk(min(5, logits_MC.shape[1]), dim=1).indices
    found = {
        "top1": top1(logits_MC, labels_M),
        "nll": float(losses.cross_entropy(logits_MC, labels_M).mean()),
        "ece": calibration_error(logits_MC, labels_M),
    }
    if logits_MC.shape[1] > 5:
        found["top5"] = float((best == labels_M[:, None]).any(1).float().mean())
    return found


def calibration_error(logits_MC: Tensor, labels_M: Tensor) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al. 2017,
    arXiv 1706.04599)."""
    confidence, guess = torch.softmax(logits_MC.double(), 1).max(1)
    hit = (guess == labels_M).double()
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.double, device=logits_MC.device)
    bin_M = torch.bucketize(confidence, edges[1:-1])
    gap = torch.zeros(ECE_BINS, dtype=torch.double, device=logits_MC.device)
    gap.index_add_(0, bin_M, hit - confidence)
    return float(gap.abs().sum() / len(labels_M))


class ClassRow(NamedTuple):
    """One class: its images, the share that is recognised, the mean of the largest probability
    (of whatever class) over its images. None where it has no image."""

    images: int
    top1: float | None
    confidence: float | None


def per_class(logits_MC: Tensor, labels_M: Tensor) -> list[ClassRow]:
    """A row for each of the C classes, in order."""
    confidence_M, guess_M = torch.softmax(logits_MC.double(), 1).max(1)
    hit_M = (guess_M == labels_M).double()
    sums = torch.zeros(3, logits_MC.shape[1], dtype=torch.double, device=logits_MC.device)
    sums.index_add_(1, labels_M, torch.stack([torch.ones_like(hit_M), hit_M, confidence_M]))
    return [
        ClassRow(int(n), right / n, sure / n) if n else ClassRow(0, None, None)
        for n, right, sure in sums.T.tolist()
    ]


def confusion(logits_MC: Tensor, labels_M: Tensor) -> Tensor:
    """How often each class (row) was taken for each class (column). [C, C] int64."""
    classes = logits_MC.shape[1]
    pair_M = labels_M * classes + logits_MC.argmax(1)
    return pair_M.bincount(minlength=classes**2).view(classes, classes)


def agreement(student_MC: Tensor, teacher_MC: Tensor) -> float:
    """Share of the images to which both give the same class, right or wrong."""
    return float((student_MC.argmax(1) == teacher_MC.argmax(1)).double().mean())


def divergence(student_MC: Tensor, teacher_MC: Tensor) -> float:
    """Mean KL(SM(t) ‖ SM(s)) at τ = 1, in nats."""
    return float(losses.kd(student_MC.double(), teacher_MC.double(), temperature=1.0).mean())


def parameters(model: nn.Module) -> int:
    """Numbers that learn, frozen or not; no buffers."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def macs(model: nn.Module, image_1CHW: Tensor) -> int:
    """Multiply-accumulates of one image: half of what PyTorch's FlopCounterMode counts, which is
    matrix products, convolutions and attention, not normalisation, activations or pooling."""
    from torch.utils.flop_counter import FlopCounterMode  # takes triton, which nothing else needs

    with FlopCounterMode(display=False) as counter:
        outputs(model, image_1CHW)
    return counter.get_total_flops() // 2


@torch.no_grad()
def images_per_second(model: nn.Module, images_BCHW: Tensor, numerics: Numerics) -> float:
    """Speed of the network alone on normalised images that are on its device: the median of
    5 to 30 passes (until 3 s are over) after 3 to warm up."""
    device, times = images_BCHW.device, list[float]()
    while len(times) < _WARM_UP + _REPEATS[1]:
        if len(times) >= _WARM_UP + _REPEATS[0] and sum(times[_WARM_UP:]) > _ENOUGH_S:
            break
        began = time.perf_counter()
        with numerics.autocast(device):
            outputs(model, images_BCHW)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return len(images_BCHW) / statistics.median(times[_WARM_UP:])


def chance(labels_M: Tensor) -> float:
    """The accuracy that guessing reaches: the share of the commonest class, and two standard
    errors of an accuracy over M images."""
    share = float(labels_M.bincount().max()) / len(labels_M)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels_M))


@torch.no_grad()
def weakest_gradient(named: Iterable[tuple[str, nn.Parameter]], depth: int = 1) -> float:
    """The smallest gradient norm of the modules that the first `depth` parts of the names tell
    apart, from the last backward pass; 0 where a module got none. One wait."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(parameter)
    norms = [
        torch.stack([p.new_zeros(()) if p.grad is None else p.grad.norm() for p in group]).norm()
        for group in groups.values()
    ]
    return float(torch.stack(norms).min())


def gradient_metric(
    name: str, named: Iterable[tuple[str, nn.Parameter]], depth: int = 1
) -> dict[str, float]:
    """`weakest_gradient` as a metric of that name; none where it is not a finite number, which is
    so after a step that float16 has skipped."""
    found = weakest_gradient(named, depth)
    return {name: found} if math.isfinite(found) else {}
