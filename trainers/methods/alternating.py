"""Base of the methods that alternate: in the A-Step a fusion module learns, in the B-Step the
student.

Shapes: B examples, C classes, D latent width, K teachers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainers import losses, targets
from trainers.bottleneck import IBMBM, Bottleneck, SynergyHead
from trainers.loop import Terms
from trainers.methods.base import Method, StepPosition
from trainers.models import Outputs


class Synergy(NamedTuple):
    """What a fusion gives of images: its logits [B, C], its certainty [B] (None: no bottleneck) and
    its mean [B, D] (None: not kept)."""

    logits: Tensor
    certainty: Tensor | None
    latent: Tensor | None = None


class AlternatingMethod(Method):
    """A method with an A-Step, unless its options turn the fusion off (`fuses`)."""

    config: Any  # the options of the A-Step are those of `AsibConfig`
    fusion: IBMBM
    head: SynergyHead

    @property
    def fuses(self) -> bool:
        """Whether there is a fusion module, and so an A-Step."""
        return True

    @property
    def members(self) -> list[AlternatingMethod]:
        """The fusions that learn in the A-Step: this one, or one for every fold of the images."""
        return [self]

    @property
    def live_query(self) -> bool:
        """Whether the fusion's query is the present student, not that of the stage's start."""
        return False

    @property
    def reads_query(self) -> bool:
        """Whether the fusion reads features of the student at all."""
        return True

    @property
    def ema_query(self) -> bool:
        """Whether the student of a stage's start, which the fusion reads, is its moving average."""
        return False

    @property
    def samples_targets(self) -> bool:
        """Whether synergy targets are g(z) with a sampled latent, not g(mu)."""
        return False

    @property
    def placebo(self) -> str:
        """What is taken out of the teachers' outputs (`trainers.distillation.placebos`)."""
        return "none"

    @property
    def tunes_teachers(self) -> bool:
        """Whether blocks of the teachers learn in the A-Step."""
        return False

    def teacher_level(self, stage: int) -> int:
        """Freezing level of every teacher in a stage (`trainers.models.freezing`)."""
        return -1

    def beta(self, position: StepPosition) -> float:
        """Weight of the rate in an A-Step epoch."""
        raise NotImplementedError

    def fuse(
        self,
        query_BD: Tensor | None,
        pooled: list[Tensor],
        *,
        sample: bool = False,
        which: list[int] | None = None,
    ) -> Bottleneck:
        """The latent for a student's pooled features (None: not read) and those of K teachers
        (`which`: of these teachers only)."""
        raise NotImplementedError

    def synergy_logits(
        self, latent_BD: Tensor, teachers: list[Tensor], *, which: list[int] | None = None
    ) -> Tensor:
        """The logits of a latent, next to those of the K teachers (`which`: of these only)."""
        return self.head(latent_BD)

    def synergy(
        self,
        query_BD: Tensor | None,
        teachers: list[Tensor],
        pooled: list[Tensor],
        *,
        sample: bool = False,
        which: list[int] | None = None,
        share_FB: Tensor | None = None,
    ) -> Synergy:
        """Logits, certainty and mean for a student's features and the K teachers' logits and
        features; of a latent that is sampled (`sample`) or its mean. Of several fusions their mean,
        weighted by `share_FB` (None: equally)."""
        found = [one._synergy(query_BD, teachers, pooled, sample, which) for one in self.members]
        return found[0] if len(found) == 1 else _mean(found, share_FB)

    def _synergy(
        self,
        query_BD: Tensor | None,
        teachers: list[Tensor],
        pooled: list[Tensor],
        sample: bool,
        which: list[int] | None,
    ) -> Synergy:
        found = self.fuse(query_BD, pooled, sample=sample, which=which)
        sure = None if found.logvar is None else targets.certainty(found.logvar)
        return Synergy(self.synergy_logits(found.z, teachers, which=which), sure, found.mu)

    def teacher_terms(
        self,
        student: Outputs,
        teachers: list[Outputs],
        start_logits: list[Tensor] | None,
        labels_B: Tensor,
        position: StepPosition,
    ) -> Terms:
        """The A-Step's terms. `start_logits`: of teachers that learn, before they learned."""
        raise NotImplementedError

    def clamp_loss(self, loss: Tensor, position: StepPosition) -> Tensor:
        """The A-Step's total loss as it is minimised."""
        return loss


def _mean(found: list[Synergy], share_FB: Tensor | None) -> Synergy:
    """The weighted mean of what several fusions give."""
    logits_FBC, sure = torch.stack([one.logits for one in found]), [one.certainty for one in found]
    if share_FB is None:
        share_FB = logits_FBC.new_full(logits_FBC.shape[:2], 1 / len(found))
    certain = [one for one in sure if one is not None]
    return Synergy(
        (share_FB[:, :, None] * logits_FBC).sum(0),
        (share_FB * torch.stack(certain)).sum(0) if certain else None,
    )


def alternating(method: Method) -> AlternatingMethod | None:
    """The method, if it has an A-Step under its options."""
    return method if isinstance(method, AlternatingMethod) and method.fuses else None


def preservation(logits: list[Tensor], start: list[Tensor], tau: float) -> Tensor:
    """mean over teachers and images of τ²·KL(SM(t⁰/τ) ‖ SM(t/τ)). Scalar."""
    return torch.stack(
        [losses.kd(now, then, tau).mean() for now, then in zip(logits, start, strict=True)]
    ).mean()
