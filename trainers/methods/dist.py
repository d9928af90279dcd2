"""DIST, relations in place of probabilities (Huang et al. 2022, arXiv 2205.10536)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import losses
from trainers.methods.base import TeacherOutputs
from trainers.methods.baseline import LogitBaseline, LogitConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option


@dataclass
class DistConfig(LogitConfig):
    """Correlation of probabilities over the classes of an image, and over the images of a
    batch."""

    name: str = option("dist", "the method")
    beta: float = option(2.0, "weight of the relation between classes", low=0)
    gamma: float = option(2.0, "weight of the relation within a class", low=0)
    tau: float = option(4.0, "temperature", low=1e-2)


class Dist(LogitBaseline):
    """CE + τ²·(β·mean_i (1 - ρ(q_i, p_i)) + γ·mean_c (1 - ρ(q_·c, p_·c))), p = SM(s/τ), ρ
    Pearson's correlation."""

    config: DistConfig
    config_type = DistConfig

    def aim(self, logits_BC: Tensor, mix: Mix) -> Tensor:
        return self.target(logits_BC, mix, self.config.tau)

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        c = self.config
        p = torch.softmax(losses.wide(student.logits) / c.tau, -1)
        q = self.made(teacher_outputs)
        between = losses.pearson_distance(p, q).mean()
        within = losses.pearson_distance(p.T, q.T).mean()
        return c.tau**2 * (c.beta * between + c.gamma * within)
