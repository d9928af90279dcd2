"""Attention transfer (Zagoruyko and Komodakis 2017, arXiv 1612.03928)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import losses
from trainers.methods.base import TeacherOutputs
from trainers.methods.baseline import Baseline, BaselineConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option

BLOCKS = 3  # the last maps of both networks, paired from the end


@dataclass
class AtConfig(BaselineConfig):
    """Distance of the attention maps of both networks."""

    name: str = option("at", "the method")
    weight: float = option(1000.0, "weight of the attention maps' distance", low=0)
    p: float = option(2.0, "power of the activations", low=1)


class At(Baseline):
    """CE + 1000·Σ_blocks mean (Q_s - Q_t)², Q = vec(mean_c |F|^p) normalised; the mean over the
    teachers. Teachers are run on the images that the student sees."""

    config: AtConfig
    config_type = AtConfig
    needs_maps = True

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        return torch.stack(
            [self._blocks(student.maps, maps) for maps in teacher_outputs.maps]
        ).mean()

    def _blocks(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        count = min(BLOCKS, len(student), len(teacher))
        pairs = zip(student[-count:], teacher[-count:], strict=True)
        of_blocks = [losses.attention_transfer(s, t, p=self.config.p) for s, t in pairs]
        return torch.stack(of_blocks).sum(0).mean()
