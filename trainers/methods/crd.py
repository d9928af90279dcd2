"""Contrastive representation distillation (Tian et al. 2020, arXiv 1910.10699).

Shapes: B examples, L of them, the first, with a label, N training images, D width of the common
space, K negatives, I = 1 + K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers import losses
from trainers.methods.base import Dims, TeacherOutputs
from trainers.methods.baseline import Baseline, BaselineConfig
from trainers.mixing import Mix, weight
from trainers.models import Outputs
from trainers.options import option

DENSE = 4  # the whole bank is scored where it is no larger than this many times K


@dataclass
class CrdConfig(BaselineConfig):
    """Contrast of the student and teacher features of one image with those of other images."""

    name: str = option("crd", "the method")
    weight: float = option(0.8, "weight of the contrastive term", low=0)
    dim: int = option(128, "width of the common space of the features", low=1)
    negatives: int = option(
        16384, "negatives of each image, sampled with replacement", low=1, high=2**20
    )
    temperature: float = option(0.07, "temperature of the scores", low=0.02)
    momentum: float = option(0.5, "share of the old feature in the memory bank", low=0, high=1)


class Crd(Baseline):
    """CE + 0.8·mean_i (NCE of the student against the bank of teacher features + NCE of the
    teacher against the bank of student features), the mean over the teachers.

    Of mixed images: λ·NCE(own image) + (1-λ)·NCE(partner), each against its own negatives; the
    teacher's pooled features are mixed likewise; the memory of the own image moves by
    λ·(1 - momentum), that of the partner not at all, because the partner has its own turn. An
    image without a label is a class of its own.
    """

    config: CrdConfig
    config_type = CrdConfig

    def __init__(self, config: CrdConfig, dims: Dims) -> None:
        super().__init__(config, dims)
        self.contrasts = nn.ModuleList(
            Contrast(config, dims.student, dims.teachers[k], dims.images)
            for k in self.teachers_used
        )
        known = torch.empty(0, dtype=torch.int64) if dims.labels is None else dims.labels.cpu()
        alone = dims.classes + torch.arange(dims.images - len(known))  # a class of its own each
        for name, value in classes_of(torch.cat([known, alone]))._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        return list(self.named_parameters()) if step == "B" else []

    def distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        assert teacher_outputs.image is not None
        classes = Classes(*(getattr(self, name) for name in Classes._fields))
        counted = len(classes.order) <= self.config.negatives
        drawn = draw(teacher_outputs.image, self.config.negatives, classes, counted=counted)
        with torch.autocast(labels_L.device.type, enabled=False):
            found = [
                contrast(student.pooled, mix.blend(pooled), drawn, mix)
                for contrast, pooled in zip(self.contrasts, teacher_outputs.pooled, strict=True)
            ]
        return torch.stack(found).mean()


class Contrast(nn.Module):
    """Student and one teacher: a projection and a memory bank [N, D] each."""

    student_bank: Tensor
    teacher_bank: Tensor
    student_z: Tensor
    teacher_z: Tensor

    def __init__(self, config: CrdConfig, student: int, teacher: int, images: int) -> None:
        super().__init__()
        self.config = config
        self.project_student = nn.Linear(student, config.dim)
        self.project_teacher = nn.Linear(teacher, config.dim)
        bound = (config.dim / 3) ** -0.5
        for side in ("student", "teacher"):
            bank = torch.empty(images, config.dim).uniform_(-bound, bound)
            self.register_buffer(f"{side}_bank", bank)
            self.register_buffer(f"{side}_z", torch.tensor(-1.0))  # until the first batch

    def forward(self, student_BF: Tensor, teacher_BF: Tensor, drawn: Drawn, mix: Mix) -> Tensor:
        """Both anchors' NCE of the drawn images; moves the memory while training. Mean over the
        batch, scalar."""
        s_BD = F.normalize(self.project_student(losses.wide(student_BF)), dim=1)
        t_BD = F.normalize(self.project_teacher(losses.wide(teacher_BF)), dim=1)
        of_student = self._nce(s_BD, self.teacher_bank, self.student_z, drawn, mix)
        of_teacher = self._nce(t_BD, self.student_bank, self.teacher_z, drawn, mix)
        if self.training:
            kept = 1 - mix.lam * (1 - self.config.momentum)
            remember(self.student_bank, drawn.own, s_BD, kept)
            remember(self.teacher_bank, drawn.own, t_BD, kept)
        return (of_student + of_teacher).mean()

    def _nce(self, anchor_BD: Tensor, bank_ND: Tensor, z: Tensor, drawn: Drawn, mix: Mix) -> Tensor:
        """NCE of anchors against a bank. Shape B."""
        dense = len(bank_ND) <= DENSE * self.config.negatives
        # Cloned: what is gathered for the gradient must outlive the memory's moving on.
        bank_ND = bank_ND.clone() if dense else bank_ND
        all_BN = anchor_BD @ bank_ND.T if dense else None

        def scores(index_BI: Tensor) -> Tensor:
            if all_BN is not None:
                one = index_BI.shape[1] == 1
                found_BI = losses.column(all_BN, index_BI) if one else all_BN.gather(1, index_BI)
            else:
                found_BI = torch.einsum("bid,bd->bi", bank_ND[index_BI], anchor_BD)
            return (found_BI / self.config.temperature).exp()

        every_BN = None
        if drawn.counted:
            assert all_BN is not None, "a bank no larger than K is scored as a whole"
            every_BN = (all_BN / self.config.temperature).exp()

        def parts(of: Drawn) -> tuple[Tensor, Tensor, Tensor | None]:
            """Scores of the own images [B] and of negatives, and how often each of these counts."""
            own_B = scores(of.own[:, None])[:, 0]
            if every_BN is None:
                return own_B, scores(of.negatives), None
            return own_B, every_BN, of.negatives

        own_B, others, times = parts(drawn)
        with torch.no_grad():
            sum_B = (others if times is None else others * times).sum(1)
            mean = (own_B + sum_B).mean() / (1 + drawn.number)
            value = torch.where(z < 0, mean * len(bank_ND), z)
        if self.training:
            z.copy_(value)

        def nce(own_B: Tensor, others: Tensor, times: Tensor | None) -> Tensor:
            return losses.noise_contrastive(
                own_B / value, others / value, len(bank_ND), times_BK=times
            )

        nce_B = nce(own_B, others, times)
        if mix.partner is None:
            return nce_B
        return mix.lam * nce_B + (1 - mix.lam) * nce(*parts(drawn.of(mix.partner)))


class Drawn(NamedTuple):
    """The own image of each example [B] and its K = `number` negatives: which they are [B, K], or,
    `counted`, how often each image of the bank is among them [B, N]."""

    own: Tensor
    number: int
    negatives: Tensor
    counted: bool

    def of(self, partner_B: Tensor) -> Drawn:
        """What was drawn for other examples of the batch."""
        own, negatives = self.own[partner_B], self.negatives[partner_B]
        return self._replace(own=own, negatives=negatives)


class Classes(NamedTuple):
    """The training images by class: `order` [N] lists them class by class, `place` [N] is where an
    image is in it, `start` [N] where its class begins there, `size` [N] how many images it has."""

    order: Tensor
    place: Tensor
    start: Tensor
    size: Tensor


def classes_of(labels_N: Tensor) -> Classes:
    """The training images by class."""
    counts = torch.bincount(labels_N)
    starts = counts.cumsum(0) - counts
    order = labels_N.argsort(stable=True)
    return Classes(order, order.argsort(), starts[labels_N], counts[labels_N])


def draw(image_B: Tensor, count: int, classes: Classes, *, counted: bool) -> Drawn:
    """Images of other classes, drawn evenly with replacement by the device's own generator."""
    start_B1, size_B1 = classes.start[image_B, None], classes.size[image_B, None]
    others_B1 = len(classes.order) - size_B1
    drawn_BK = torch.rand(len(image_B), count, device=image_B.device)
    place_BK = (drawn_BK * others_B1).long()  # in `order`, without the own class
    if not counted:
        image_BK = classes.order[place_BK + torch.where(place_BK >= start_B1, size_B1, 0)]
        return Drawn(image_B, count, image_BK, counted)
    times_BN = torch.zeros(len(image_B), len(classes.order), device=image_B.device)
    times_BN.scatter_add_(1, place_BK, torch.ones_like(drawn_BK[:1, :1]).expand_as(place_BK))
    after_BN = classes.place >= start_B1 + size_B1
    other_BN = (classes.place < start_B1) | after_BN
    from_BN = (classes.place - torch.where(after_BN, size_B1, 0)) * other_BN
    return Drawn(image_B, count, times_BN.gather(1, from_BN) * other_BN, counted)


@torch.no_grad()
def remember(bank_ND: Tensor, image_B: Tensor, feature_BD: Tensor, kept: float | Tensor) -> None:
    """bank[image] ← normalised(kept·bank[image] + (1 - kept)·feature)."""
    moved = torch.lerp(feature_BD.detach(), bank_ND[image_B], weight(kept))
    bank_ND[image_B] = F.normalize(moved, dim=1)
