"""Knowledge distillation (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

The ladder's control `KD` is not this method but ASIB with everything except the teachers' average
switched off.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers import losses
from trainers.methods.base import TeacherOutputs
from trainers.methods.baseline import LogitBaseline, LogitConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option


@dataclass
class KdConfig(LogitConfig):
    """Divergence from the teachers' softened probabilities."""

    name: str = option("kd", "the method")
    ce_weight: float = option(0.1, "weight of the labels' cross-entropy", low=0)
    weight: float = option(0.9, "weight of the divergence", low=0)
    tau: float = option(4.0, "temperature", low=1e-2)


class Kd(LogitBaseline):
    """0.1·CE + 0.9·mean_i τ²·KL(q_i ‖ SM(s_i/τ))."""

    config: KdConfig
    config_type = KdConfig

    def compared(self, logits_BC: Tensor) -> Tensor:
        """The form of the logits that is compared: unchanged."""
        return logits_BC

    def aim(self, logits_BC: Tensor, mix: Mix) -> Tensor:
        return self.target(self.compared(logits_BC), mix, self.config.tau)

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        q = self.made(teacher_outputs)
        return losses.kl_to(q, self.compared(student.logits), self.config.tau).mean()
