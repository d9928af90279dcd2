"""FitNets: hints of a middle layer (Romero et al. 2015, arXiv 1412.6550), in the one-stage form
of the public tables (Tian et al. 2020, arXiv 1910.10699)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import losses
from trainers.methods.base import Dims, TeacherOutputs
from trainers.methods.baseline import Baseline, BaselineConfig
from trainers.mixing import Mix
from trainers.models import Outputs
from trainers.options import option

T = TypeVar("T")

BLOCKS = 3  # of the last maps of a network, the middle one gives the hint


@dataclass
class FitnetConfig(BaselineConfig):
    """Regression of the teacher's middle feature map from the student's."""

    name: str = option("fitnet", "the method")
    weight: float = option(100.0, "weight of the hint", low=0)


class Fitnet(Baseline):
    """CE + 100·mean ‖r(F_s) - F_t‖² at the middle block, r = ReLU(BN(1×1 convolution)), one for
    each teacher, which learns with the student; the mean over the teachers. Both maps are first
    pooled (adaptive average) to the smaller. Teachers are run on the images that the student
    sees."""

    config: FitnetConfig
    config_type = FitnetConfig
    needs_maps = True

    def __init__(self, config: FitnetConfig, dims: Dims) -> None:
        super().__init__(config, dims)
        channels = middle(dims.student_maps)[0]
        self.regressors = nn.ModuleList(
            _regressor(channels, middle(dims.teacher_maps[k])[0]) for k in self.teachers_used
        )

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        return list(self.named_parameters()) if step == "B" else []

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        found = []
        for regressor, maps in zip(self.regressors, teacher_outputs.maps, strict=True):
            s, t = same_size(middle(student.maps), middle(maps))
            found.append(losses.hint(regressor(s), t).mean())
        return torch.stack(found).mean()


def middle(maps: tuple[T, ...]) -> T:
    """The second of the last three."""
    last = maps[-BLOCKS:]
    return last[len(last) // 2]


def same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps [B, C, H, W], pooled to the smaller height and width."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    pooled = [f if f.shape[2:] == size else F.adaptive_avg_pool2d(f, size) for f in (one, other)]
    return pooled[0], pooled[1]


def _regressor(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )
