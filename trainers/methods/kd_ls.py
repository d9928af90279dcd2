"""Distillation of standardised logits (Sun et al. 2024, arXiv 2403.01427)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers import losses
from trainers.methods.kd import Kd, KdConfig
from trainers.options import option


@dataclass
class KdLsConfig(KdConfig):
    """Divergence after both sides' logits were standardised per sample."""

    name: str = option("kd_ls", "the method")
    weight: float = option(9.0, "weight of the divergence", low=0)
    tau: float = option(2.0, "base temperature of the standardised logits", low=1e-2)


class KdLs(Kd):
    """0.1·CE + 9·mean_i τ²·KL(q_i ‖ SM(Z(s_i)/τ)), q from Z(t), Z(x) = (x - mean)/std."""

    config: KdLsConfig
    config_type = KdLsConfig

    def compared(self, logits_BC: Tensor) -> Tensor:
        return losses.standardised(logits_BC)
