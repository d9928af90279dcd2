"""Distillation as other projects' training loops do it, next to which the steps are measured.

Images come from worker processes that crop, flip and normalise them one by one; the teacher is run
in every step; numbers are read in every step. Written here after `mdistiller/engine/trainer.py` of
github.com/megvii-research/mdistiller and `examples/torchvision/image_classification.py` of
github.com/yoshitomo-matsubara/torchdistill, as read in November 2026; none of their code is run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.gpu.cases import CLASSES, MEAN, SIZE, STD, Scale
from trainers import models
from trainers.data import Images

WORKERS = 8
TAU, CE, KD = 4.0, 0.1, 0.9
PAD = 4
Step = Callable[[Tensor, Tensor], None]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images that are cropped, flipped and normalised when they are read, as floats [3, H, W]."""

    def __init__(self, images: Images) -> None:
        self._pixels = F.pad(images.pixels.cpu(), (PAD,) * 4)
        self._labels = images.labels.tolist()
        self._mean, self._std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        top, left, flipped = torch.randint(2 * PAD + 1, (3,)).tolist()
        crop = self._pixels[index, :, top : top + SIZE, left : left + SIZE]
        crop = crop.flip(-1) if flipped % 2 else crop
        return (crop / 255 - self._mean) / self._std, self._labels[index]


def epoch(
    name: str, scale: Scale, images: Images, teacher: nn.Module, workers: int = WORKERS
) -> Callable[[], int]:
    """An epoch of one of `STEPS`; it gives the number of images that it trained on."""
    device, step = images.device, STEPS[name](scale, teacher)
    loader = DataLoader(
        Pictures(images),
        scale.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def run() -> int:
        for pixels, labels in loader:
            step(pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        return len(loader) * scale.batch

    return run


def _networks(scale: Scale, teacher: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    device = next(teacher.parameters()).device
    student = models.build(scale.student, CLASSES, SIZE).to(device).train()
    return student, torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)


def _loss(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
    soft = F.kl_div(
        F.log_softmax(student_BC / TAU, 1), F.softmax(teacher_BC / TAU, 1), reduction="batchmean"
    )
    return CE * F.cross_entropy(student_BC, labels_B) + KD * TAU**2 * soft


def _meters(scale: Scale, teacher: nn.Module) -> Step:
    """The loss and two accuracies are averaged on the host in every step."""
    student, optimiser = _networks(scale, teacher)
    sums = [0.0, 0.0, 0.0]

    def step(images_BCHW: Tensor, labels_B: Tensor) -> None:
        optimiser.zero_grad()
        logits_BC = student(images_BCHW)
        with torch.no_grad():
            taught_BC = teacher(images_BCHW)
        loss = _loss(logits_BC, taught_BC, labels_B)
        loss.backward()
        optimiser.step()
        right_B5 = logits_BC.topk(5, 1).indices == labels_B[:, None]
        for at, value in enumerate((loss, right_B5[:, 0].float().sum(), right_B5.float().sum())):
            sums[at] += value.item()

    return step


def _hooks(scale: Scale, teacher: nn.Module) -> Step:
    """The loss takes what hooks collect of both networks; it is read, and tested for being finite,
    in every step."""
    student, optimiser = _networks(scale, teacher)
    found: dict[str, Tensor] = {}

    def collect(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, output: found.update({name: output})

    student.register_forward_hook(collect("student"))

    def step(images_BCHW: Tensor, labels_B: Tensor) -> None:
        hook = teacher.register_forward_hook(collect("teacher"))
        with torch.no_grad():
            teacher(images_BCHW)
        hook.remove()
        student(images_BCHW)
        loss = _loss(found.pop("student"), found.pop("teacher"), labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if not torch.isfinite(torch.tensor(loss.item())) or torch.isnan(loss):
            raise ArithmeticError("the loss is not finite")

    return step


STEPS: dict[str, Callable[[Scale, nn.Module], Step]] = {
    "like MDistiller": _meters,
    "like torchdistill": _hooks,
}
