"""Base of the methods of the literature: cross-entropy plus one weighted distillation term, and the
teachers of that term.

Shapes: B examples, L of them, the first, with a label, C classes, K teachers in use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainers import metrics, targets
from trainers.loop import Terms
from trainers.methods.base import Method, MethodConfig, StepPosition, TeacherOutputs
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import When, option

TARGET = "target"  # of a LogitBaseline, among the targets of a batch
BEST, ALL, AUTO = "best", "avg", "auto"
VALIDATION = "validation"

_averages = When("`method.teacher` is avg", lambda m: m.teacher == ALL)


@dataclass
class BaselineConfig(MethodConfig):
    """Weights of the labels' cross-entropy and of the method's own term, and its teachers."""

    name: str = option("", "the method")
    ce_weight: float = option(1.0, "weight of the labels' cross-entropy", low=0)
    weight: float = option(1.0, "weight of the distillation term", low=0)
    label_smoothing: float = option(0.0, "label smoothing", low=0, high=1)
    teacher: str = option(
        AUTO,
        "best: the teacher of the best validation accuracy, as in the paper; avg: all of "
        "them (their mean logits, or the mean of the term over them); a number: that one, from 0; "
        "auto: avg where teachers know different classes, else best",
    )

    def headline(self) -> dict[str, float | str]:
        weights = {"ce": self.ce_weight, "kd": self.weight}
        return super().headline() | weights | {"teacher": self.teacher}

    def settled(self, *, specialised: bool) -> MethodConfig:
        return replace(self, **self._automatic(specialised))

    def _automatic(self, specialised: bool) -> dict[str, Any]:
        """What `auto` stands for, by option."""
        return {"teacher": ALL if specialised else BEST} if self.teacher == AUTO else {}

    def teacher_numbers(self) -> dict[str, list[int]]:
        return {"teacher": [int(self.teacher)] if self.teacher.isdecimal() else []}

    def errors(self, adapt_epochs: int, student_dim: int | None, teachers: int) -> list[str]:
        found = super().errors(adapt_epochs, student_dim, teachers)
        if self.teacher not in (BEST, ALL, AUTO) and not self.teacher.isdecimal():
            found.append(
                f"method.teacher={self.teacher}: not {AUTO}, {BEST}, {ALL} or the number of a "
                "teacher"
            )
        if self.ce_weight == 0 and self.weight == 0:
            found.append("method.ce_weight=0 and method.weight=0: the student learns from nothing")
        return found


@dataclass
class LogitConfig(BaselineConfig):
    """What methods that read the teachers' logits share."""

    weighting: str = option(
        AUTO,
        "weights of the teachers of avg: equal; entropy: per sample, by ln C - H; "
        "confidence: per sample, by its largest probability; shares sum to 1; validation: the one "
        "of these three whose combined teachers have the best validation accuracy; auto: "
        "validation where teachers know different classes, else equal",
        choices=(AUTO, "equal", "entropy", "confidence", VALIDATION),
        when=_averages,
    )
    target_view: str = option(
        "two_view",
        "target of a mixed image: two_view: mixed targets of both source images; clean: the first "
        "source's target only (it does not agree with a mixed input); same: teachers are run live "
        "on the mixed image (it costs)",
        choices=("two_view", "clean", "same"),
    )

    def _automatic(self, specialised: bool) -> dict[str, Any]:
        found = super()._automatic(specialised)
        weighting = VALIDATION if specialised else "equal"
        return found | ({"weighting": weighting} if self.weighting == AUTO else {})

    def reads_validation(self) -> str:
        return "method.weighting=validation" if self.weighting == VALIDATION else ""


class Baseline(Method):
    """ce_weight·CE + weight·distance; a subclass defines the distance."""

    config: BaselineConfig

    @property
    def teachers_used(self) -> list[int]:
        numbers = self.config.teacher_numbers()["teacher"]
        if self.config.teacher == ALL:
            return super().teachers_used
        return numbers or [self.dims.best_teacher]

    def weight(self, position: StepPosition) -> float:
        """Weight of the distance at this moment."""
        return self.config.weight

    def kd_weight(self, position: StepPosition) -> float:
        return self.weight(position)

    def needs_teachers(self, position: StepPosition) -> bool:
        return self.weight(position) > 0

    def student_terms(
        self,
        student: Outputs,
        teacher_outputs: TeacherOutputs | None,
        labels_L: Tensor,
        mix: Mix,
        position: StepPosition,
    ) -> Terms:
        c = self.config
        ce = targets.label_loss(student.logits, labels_L, c.label_smoothing, mix)
        terms, weight = {"ce": c.ce_weight * ce}, self.weight(position)
        if weight == 0 or teacher_outputs is None:
            return Terms(terms, {})
        made = teacher_outputs.targets
        if made is None:
            made = self.student_targets(teacher_outputs, labels_L, mix, position)
            teacher_outputs = teacher_outputs._replace(targets=made)
        terms[c.name] = weight * self.distance(student, teacher_outputs, labels_L, mix)
        return Terms(terms, {name: made[name] for name in made if name == metrics.DISAGREEMENT})

    def student_targets(
        self, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix, position: StepPosition
    ) -> dict[str, Tensor]:
        if len(teacher_outputs.teachers) == 1:
            return {}
        return {metrics.DISAGREEMENT: targets.disagreement(teacher_outputs.teachers)}

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        """The method's own term, unweighted, mean over the batch; `teacher_outputs` has the
        targets of `student_targets`. Scalar."""
        raise TypeError(f"{type(self).__name__} has no term of its own")


class LogitBaseline(Baseline):
    """A baseline whose term reads the teachers' logits."""

    config: LogitConfig

    @property
    def live_targets(self) -> bool:
        return self.config.target_view == "same"

    def student_targets(
        self, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix, position: StepPosition
    ) -> dict[str, Tensor]:
        seen = super().student_targets(teacher_outputs, labels_L, mix, position)
        return seen | {TARGET: self.aim(self.teacher_logits(teacher_outputs), mix)}

    def aim(self, logits_BC: Tensor, mix: Mix) -> Tensor:
        """What the student is compared with, of the teachers' logits: probabilities, or logits, of
        the images that it sees. [B, C]."""
        raise TypeError(f"{type(self).__name__} has no target")

    def made(self, teacher_outputs: TeacherOutputs) -> Tensor:
        """The target of `aim`, as it was made for this batch."""
        assert teacher_outputs.targets is not None
        return teacher_outputs.targets[TARGET]

    def teacher_logits(self, teacher_outputs: TeacherOutputs) -> Tensor:
        """Σ_k w_k t_k over the teachers in use, with shares that sum to 1. [B, C]."""
        chosen = self.config.weighting
        weighting = self.dims.best_weighting if chosen == VALIDATION else chosen
        return targets.combined_logits(teacher_outputs.teachers, weighting)

    def blends(self, mix: Mix) -> bool:
        """Whether the target is mixed from those of two images."""
        return mix.partner is not None and self.config.target_view == "two_view"

    def target(self, logits_BC: Tensor, mix: Mix, temperature: float) -> Tensor:
        """q = λ·SM(A/τ) + (1-λ)·SM(B/τ), or SM(A/τ) where one image is the target. [B, C]."""
        q = torch.softmax(logits_BC / temperature, -1)
        return mix.blend(q) if self.blends(mix) else q
