"""ASIB: Adaptive Synergy Information-Bottleneck distillation, and the ladder's controls.

The controls CE and KD are this method with factors switched off, so that adjacent rungs of the
ladder differ in one factor and in nothing else. Shapes: B examples, C classes, D latent width,
K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import losses, metrics, targets
from trainers.loop import Terms
from trainers.methods.asib.config import taught
from trainers.methods.asib.fusing import Fusing
from trainers.methods.asib.guidance import Guidance, guidance, kept_samples, needed_images
from trainers.methods.asib.levels import level_of
from trainers.methods.base import StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix
from trainers.models import Outputs
from trainers.options import span


class Asib(Fusing):
    """The fusion with its A-Step, and the objective of the student."""

    @property
    def live_targets(self) -> bool:
        return taught(self.config) and self.config.target_view == "same"

    @property
    def live_query(self) -> bool:
        return self.config.query == "live"

    @property
    def ema(self) -> tuple[float, int] | None:
        c = self.config
        return (c.ema_decay, c.ema_update_every) if self.ema_teaches or self.ema_query else None

    @property
    def ema_teaches(self) -> bool:
        return taught(self.config) and self.config.ema_weight > 0

    @property
    def ema_query(self) -> bool:
        return self.fuses and self.config.query == "ema"

    @property
    def stack_features(self) -> str | None:
        return self.config.stack_features if self.config.kd_target == "stack" else None

    @property
    def samples_targets(self) -> bool:
        return self.config.bottleneck and not self.config.use_mu_for_kd

    @property
    def placebo(self) -> str:
        return self.config.placebo

    @property
    def tunes_teachers(self) -> bool:
        return self.fuses and self.config.adapt == "backbone"

    def teacher_level(self, stage: int) -> int:
        return level_of(self.config.teacher_levels, stage)

    def student_level(self, stage: int) -> int:
        return level_of(self.config.student_levels, stage)

    @property
    def freeze_bn(self) -> bool:
        return self.config.freeze_bn

    # B-Step ---------------------------------------------------------------------------------

    def kd_weight(self, position: StepPosition) -> float:
        """kd_eff of a B-Step epoch."""
        return self.config.kd_weight(position.epoch, position.total)

    def needs_teachers(self, position: StepPosition) -> bool:
        return self.kd_weight(position) > 0

    def needed_images(self, student: Outputs, labels_L: Tensor, mix: Mix) -> Tensor | None:
        return needed_images(self.config, student.logits, labels_L, mix)

    def student_targets(
        self, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix, position: StepPosition
    ) -> dict[str, Tensor]:
        count = teacher_outputs.teachers.shape[1]
        return self._guided(teacher_outputs, labels_L, mix, position, count).named()

    def student_terms(
        self,
        student: Outputs,
        teacher_outputs: TeacherOutputs | None,
        labels_L: Tensor,
        mix: Mix,
        position: StepPosition,
    ) -> Terms:
        """ce_alpha·CE + kd_eff·mean_i ω_i·τ²·KL(q_i ‖ SM(s_i/τ)). The ratio cap is that of images
        with a label, whose cross-entropy there is: the others' distillation has none."""
        c, known = self.config, len(labels_L)
        ce = targets.label_loss(student.logits, labels_L, c.label_smoothing, mix)
        weight = self.kd_weight(position)
        if weight == 0 or teacher_outputs is None:
            return Terms({"ce": c.ce_alpha * ce}, {})
        if teacher_outputs.targets is None:
            guided = self._guided(teacher_outputs, labels_L, mix, position, len(student.logits))
        else:
            guided = Guidance.of(teacher_outputs.targets)
        omega_B, count, seen = guided.omega, torch.tensor(float(len(student.logits))), guided.seen
        if c.kd_sample_gate:
            kept_B, count = kept_samples(c, student.logits, labels_L, mix)
            omega_B, seen = omega_B * kept_B, seen | {metrics.KD_KEPT: kept_B.mean()}
        per_image_B = self._distance(student.logits, guided.target, labels_L, mix)
        weighted_B = omega_B * per_image_B
        total = targets.first_of(weighted_B, known).sum()
        kd = total / count
        if position.epoch < span(c.kd_warmup_epochs, position.total):
            scale = torch.ones_like(ce)
        else:
            others = len(weighted_B) - known
            mean = total / (count - others).clamp(min=1) if others else kd
            scale = (c.kd_max_ratio * ce / mean.clamp_min(1e-12)).detach().clamp(max=1.0)
        terms = {"ce": c.ce_alpha * ce, "kd": weight * scale * kd}
        if known < len(weighted_B):
            terms["kd"] = terms["kd"] + weight * weighted_B[known:].sum() / count
        share = terms["kd"] / (terms["kd"] + terms["ce"])
        seen |= {metrics.KD_SCALE: scale, metrics.KD_SHARE: share}
        if c.feat_kd_alpha > 0:
            far_B = self._latent_distance(student, teacher_outputs, mix)
            if far_B is not None:
                terms["feat"] = c.feat_kd_alpha * (omega_B * far_B).sum() / count
        return Terms(terms, seen)

    def _guided(
        self,
        teacher_outputs: TeacherOutputs,
        labels_L: Tensor,
        mix: Mix,
        position: StepPosition,
        count: int,
    ) -> Guidance:
        """Target and weight of every image, of `count`, as the student sees it."""
        c, ema = self.config, teacher_outputs.ema
        guided = self._guided_source(teacher_outputs, labels_L, mix, position, count)
        if c.target_view != "two_view" or mix.partner is None:
            return guided
        partners = guided
        if ema is not None and c.ema_view == "first":
            plain = _without_ema(teacher_outputs)
            partners = self._guided_source(plain, labels_L, mix, position, count)
        target_BC = mix.blend(guided.target, partners.target)
        return guided._replace(target=target_BC, omega=mix.blend(guided.omega, partners.omega))

    def _guided_source(
        self,
        teacher_outputs: TeacherOutputs,
        labels_L: Tensor,
        mix: Mix,
        position: StepPosition,
        count: int,
    ) -> Guidance:
        """Target and weight of every image that the teachers saw; under a placebo of the fusion
        those of a donor, routed by the donor's own label."""
        others = count - len(labels_L)
        c, donor = self.config, teacher_outputs.donor
        as_shown = mix if c.target_view == "same" else UNMIXED
        found = guidance(c, teacher_outputs, labels_L, as_shown, position, others)
        if donor is not None:
            assert self.dims.labels is not None
            assert donor.image is not None
            donor_labels = self.dims.labels[donor.image[: len(donor.image) - others]]
            of_donor = guidance(c, donor, donor_labels, UNMIXED, position, others)
            found = found.where_fused(of_donor)
        return found.of_batch(teacher_outputs.at, count)

    def _latent_distance(
        self, student: Outputs, teacher_outputs: TeacherOutputs, mix: Mix
    ) -> Tensor | None:
        """Huber's distance of the student's query to the fusion's mean; None: gate closed. [B]."""
        c, latent_BD = self.config, (teacher_outputs.donor or teacher_outputs).latent
        if latent_BD is None:
            return None
        if teacher_outputs.at is not None:
            some_ND = latent_BD
            latent_BD = some_ND.new_zeros(len(student.pooled), some_ND.shape[1])
            latent_BD[teacher_outputs.at] = some_ND
        aim_BD = latent_BD.clamp(-c.feat_kd_clip, c.feat_kd_clip)
        aim_BD = mix.blend(aim_BD) if c.target_view == "two_view" else aim_BD
        query = losses.wide(self.query_adapter(student.pooled))
        return losses.huber(query, aim_BD, c.feat_kd_huber_beta)

    def _distance(
        self, student_BC: Tensor, target_BC: Tensor, labels_L: Tensor, mix: Mix
    ) -> Tensor:
        """τ²·KL(q ‖ SM(s/τ)), or its decoupled form with the labels that the image shows (without
        a label, with the largest of its target). [B]."""
        c = self.config
        if not c.use_dkd_with_synergy:
            return losses.kl_to(target_BC, student_BC, c.tau)
        logits_BC = targets.logits_of(target_BC, c.tau)
        first_B, second_B = targets.target_classes(labels_L, target_BC, mix)

        def dkd(y_B: Tensor) -> Tensor:
            return losses.dkd(
                student_BC, logits_BC, y_B, alpha=c.dkd_alpha, beta=c.dkd_beta, temperature=c.tau
            )

        if second_B is None or c.target_view == "clean":
            return dkd(first_B)
        return mix.lam * dkd(first_B) + (1 - mix.lam) * dkd(second_B)


def _without_ema(found: TeacherOutputs) -> TeacherOutputs:
    donor = found.donor and found.donor._replace(ema=None)
    return found._replace(ema=None, donor=donor)
