"""Distillation of standardised logits (Sun et al. 2024, arXiv 2403.01427)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers import losses
from trainers.methods.base import Teaching
from trainers.methods.baseline import LogitBaseline, LogitConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option


@dataclass
class KdLsConfig(LogitConfig):
    """Divergence after both sides' logits were standardised per sample."""

    name: str = option("kd_ls", "the method")
    ce_weight: float = option(0.1, "weight of the labels' cross-entropy", low=0)
    weight: float = option(9.0, "weight of the divergence", low=0)
    tau: float = option(2.0, "base temperature of the standardised logits", low=1e-2)


class KdLs(LogitBaseline):
    """0.1·CE + 9·mean_i τ²·KL(q_i ‖ SM(Z(s_i)/τ)), q from Z(t), Z(x) = (x - mean)/deviation."""

    config: KdLsConfig
    config_type = KdLsConfig

    def distance(self, student: Outputs, teaching: Teaching, labels_B: Tensor, mix: Mix) -> Tensor:
        tau = self.config.tau
        q = self.target(losses.standardised(self.teacher_logits(teaching)), mix, tau)
        return losses.kl_to(q, losses.standardised(student.logits), tau).mean()
