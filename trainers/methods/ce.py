"""Cross-entropy alone: the student of the published tables, without a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers import targets
from trainers.loop import Terms
from trainers.methods.base import Method, MethodConfig, StepPosition, TeacherOutputs
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option


@dataclass
class CeConfig(MethodConfig):
    """Training without a teacher."""

    name: str = option("ce", "the method")
    ce_weight: float = option(1.0, "weight of the labels' cross-entropy", low=1e-6)
    label_smoothing: float = option(0.0, "label smoothing", low=0, high=1)

    def headline(self) -> dict[str, float | str]:
        return super().headline() | {"ce": self.ce_weight}

    def reads_teachers(self) -> bool:
        return False


class Ce(Method):
    """ce_weight·CE."""

    config: CeConfig
    config_type = CeConfig

    def needs_teachers(self, position: StepPosition) -> bool:
        return False

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
        return Terms({"ce": c.ce_weight * ce}, {})
