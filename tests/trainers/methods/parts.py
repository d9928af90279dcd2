"""What the methods' tests share: a method on random tensors in float64, and slow formulas.

Shapes: B examples, C classes, K teachers, N training images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainers.methods import METHODS
from trainers.methods.base import Dims, Method, StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix
from trainers.models import Outputs

BASELINES = ("kd", "fitnet", "at", "crd", "dkd", "dist", "kd_ls")
LOGIT = ("kd", "dkd", "dist", "kd_ls")
LATE = StepPosition(9, 10)  # after every warm-up
STUDENT, TEACHER, IMAGES = 5, 6, 40
STUDENT_MAPS = ((3, 8, 8), (4, 6, 6), (5, 4, 4), (6, 2, 2))
TEACHER_MAPS = ((4, 8, 8), (7, 3, 3), (3, 4, 4))
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


class Case(NamedTuple):
    """A method and a batch for it; the student's tensors are leaves."""

    method: Method
    student: Outputs
    teacher_outputs: TeacherOutputs
    labels: Tensor

    def term(self, mix: Mix = UNMIXED, position: StepPosition = LATE) -> Tensor:
        """The method's own term, weighted."""
        found = self.method.student_terms(
            self.student, self.teacher_outputs, self.labels, mix, position
        )
        assert set(found.losses) == {"ce", self.method.config.name}
        return found.losses[self.method.config.name]

    def gradient(self, loss: Tensor) -> list[Tensor]:
        leaves = [self.student.logits, self.student.pooled, *self.student.maps]
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


def normal(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=draw, dtype=torch.float64)


def dims(classes: int, teachers: int, best: int = 0) -> Dims:
    labels = torch.arange(IMAGES) % classes
    return Dims(
        STUDENT,
        (TEACHER,) * teachers,
        classes,
        IMAGES,
        best,
        STUDENT_MAPS,
        (TEACHER_MAPS,) * teachers,
        labels,
    )


def make(name: str, size: Dims, **options: Any) -> Method:
    kind = METHODS[name]
    options = {"negatives": 9} | options if name == "crd" else options
    torch.manual_seed(3)
    return kind(kind.config_type(**options), size).double().train()


def case(
    name: str,
    batch: int = 4,
    classes: int = 7,
    teachers: int = 2,
    same: bool = False,
    scale: float = 2.0,
    **options: Any,
) -> Case:
    """Random tensors; `same`: every teacher says the same."""
    method = make(name, dims(classes, teachers), **options)

    def maps(shapes: tuple[tuple[int, int, int], ...], seed: int) -> tuple[Tensor, ...]:
        return tuple(normal(batch, *s, seed=seed + i) for i, s in enumerate(shapes))

    student = Outputs(
        normal(batch, classes, seed=1, scale=scale),
        normal(batch, STUDENT, seed=2),
        maps(STUDENT_MAPS, 10),
    )
    leaves = [x.requires_grad_() for x in (student.logits, student.pooled, *student.maps)]
    teachers = [0 if same else k for k in method.teachers_used]
    teacher_outputs = TeacherOutputs(
        torch.stack([normal(batch, classes, seed=30 + k, scale=scale) for k in teachers]),
        pooled=tuple(normal(batch, TEACHER, seed=40 + k) for k in teachers),
        maps=tuple(maps(TEACHER_MAPS, 50 + 10 * k) for k in teachers),
        image=torch.randperm(IMAGES, generator=torch.Generator().manual_seed(7))[:batch],
    )
    labels = method.dims.labels[teacher_outputs.image]
    return Case(method, Outputs(leaves[0], leaves[1], tuple(leaves[2:])), teacher_outputs, labels)


def mixed(batch: int, lam: float = 0.3) -> Mix:
    return Mix(lam, torch.arange(batch).roll(1))


# Slow and obvious ---------------------------------------------------------------------------


def probabilities(row_C: Tensor, temperature: float = 1.0) -> Tensor:
    powers = torch.exp((row_C - row_C.max().detach()) / temperature)
    return powers / powers.sum()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q); 0·log 0 = 0."""
    some = p > 0
    return (p[some] * torch.log(p[some] / q[some])).sum()


def targets_of(rows_BC: Tensor, mix: Mix, temperature: float) -> list[Tensor]:
    """λ·SM(A/τ) + (1-λ)·SM(B/τ) for every image."""
    soft = [probabilities(row, temperature) for row in rows_BC]
    if mix.partner is None:
        return soft
    return [mix.lam * q + (1 - mix.lam) * soft[j] for q, j in zip(soft, mix.partner, strict=True)]


def mean(values: list[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)
