"""Decoupled knowledge distillation (Zhao et al. 2022, arXiv 2203.08679)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers import losses, targets
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.methods.baseline import LogitBaseline, LogitConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option, span
from trainers.schedules import ramp


@dataclass
class DkdConfig(LogitConfig):
    """The divergence's two parts, target class and other classes, with weights of their own."""

    name: str = option("dkd", "the method")
    alpha: float = option(1.0, "weight of the target class (TCKD)", low=0)
    beta: float = option(8.0, "weight of the other classes (NCKD); 6 or 2 by pair", low=0)
    tau: float = option(4.0, "temperature", low=1e-2)
    warmup_epochs: float = option(
        20 / 240, "linear rise of the term: epochs, or a fraction of the budget below 1", low=0
    )


class Dkd(LogitBaseline):
    """CE + min(1, (e+1)/warmup)·mean_i (α·TCKD + β·NCKD); of mixed images λ·DKD(y_a) +
    (1-λ)·DKD(y_b). The target class of an image without a label is the largest of its target."""

    config: DkdConfig
    config_type = DkdConfig

    def weight(self, position: StepPosition) -> float:
        warmup = span(self.config.warmup_epochs, position.total)
        return self.config.weight * ramp(position.epoch, warmup)

    def aim(self, logits_BC: Tensor, mix: Mix) -> Tensor:
        tau = self.config.tau
        if not self.blends(mix):
            return logits_BC
        return targets.logits_of(self.target(logits_BC, mix, tau), tau)

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        c, logits_BC = self.config, self.made(teacher_outputs)
        first_B, second_B = targets.target_classes(labels_L, logits_BC, mix)

        def dkd(y_B: Tensor) -> Tensor:
            one_B = losses.dkd(
                student.logits, logits_BC, y_B, alpha=c.alpha, beta=c.beta, temperature=c.tau
            )
            return one_B.mean(0, keepdim=True)  # no scalar: a λ that is one makes it float64

        if second_B is None or c.target_view == "clean":
            return dkd(first_B).squeeze(0)
        return (mix.lam * dkd(first_B) + (1 - mix.lam) * dkd(second_B)).squeeze(0)
