"""Distillations of random images: 50,000 random ones take the place of CIFAR-100.

Time and memory of a step do not depend on what images show, or teachers know.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch

from pipeline.config import compose
from pipeline.identity import distill_config
from trainers import models
from trainers.data import Images, TrainingData
from trainers.distillation.b_step import BStep
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, StepInputs, Teacher
from trainers.errors import Interrupted
from trainers.methods.base import StepPosition
from trainers.models.freezing import freeze
from trainers.view_bank import Bank, ViewOutputs

CLASSES, PIXELS = 100, 32
UNMIXED = ("mix.mixup_alpha=0", "mix.cutmix_alpha=0", "data.views=1", "numerics=float32")

Steps = Callable[[], int]  # runs some steps of the B-Step and gives the number of their images


def config(method: str, student: str, batch: int, *overrides: str) -> DistillConfig:
    """A method on the small CIFAR-100 bench, unmixed, as its paper has it."""
    chosen = [f"method={method}", f"student.model={student}", f"optim.batch={batch}"]
    return distill_config(compose(["bench=cifar100_small", *UNMIXED, *chosen, *overrides]))


def random_data(images: int, device: torch.device) -> TrainingData:
    """Random pixels with labels in turn; as few validation images as there are classes."""
    draw = torch.Generator().manual_seed(0)

    def some(count: int) -> Images:
        pixels = torch.randint(256, (count, 3, PIXELS, PIXELS), dtype=torch.uint8, generator=draw)
        return Images(pixels.to(device), torch.arange(count, device=device) % CLASSES, "random")

    return TrainingData(some(images), some(CLASSES))


def random_teacher(model: str, data: TrainingData) -> Teacher:
    """A network with initial weights and a bank of random rows in the place of its outputs."""
    device = data.train.device
    net = freeze(models.build(model, CLASSES, PIXELS)).to(device)
    width = models.pooled_dim(net)

    def rows(count: int) -> ViewOutputs:
        logits = torch.randn(count, CLASSES, device=device).half()
        return ViewOutputs(logits, torch.rand(count, width, device=device).half())

    return Teacher(net, Bank(rows(len(data.train.labels)), rows(CLASSES)))


def b_steps(
    config: DistillConfig, data: TrainingData, teachers: list[Teacher], count: int
) -> tuple[Steps, DistillState]:
    """The B-Step's own loop, `count` steps at a time, in the middle of the budget."""
    needed = teachers if config.method.reads_teachers() else []
    state = DistillState.new(config, data, needed)
    total = config.budget.student_epochs
    step = BStep(
        StepInputs.prepare(config, data, needed, state),
        state,
        StepPosition(total // 2, total),
        fresh=True,
    )

    def run() -> int:
        left = iter([False] * count)
        state.stop = lambda: next(left, True)
        with suppress(Interrupted):  # in the middle of an epoch: the next call resumes there
            step._train(StepPosition(total // 2, total))
        return count * config.optim.batch

    return run, state
