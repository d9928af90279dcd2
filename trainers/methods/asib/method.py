"""ASIB: Adaptive Synergy Information-Bottleneck distillation, and the ladder's controls.

The controls CE and KD are this method with factors switched off, so that adjacent rungs of the
ladder differ in one factor and in nothing else. Shapes: B examples, C classes, D latent width,
K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers import losses, metrics, targets
from trainers.bottleneck import IBMBM, Adapter, Bottleneck, SynergyHead
from trainers.loop import Terms
from trainers.methods.alternating import AlternatingMethod, preservation
from trainers.methods.asib.config import AsibConfig, fused, taught
from trainers.methods.asib.guidance import Guidance, guidance, kept_samples, needed_images
from trainers.methods.asib.levels import level_of
from trainers.methods.base import Dims, StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix
from trainers.models import Outputs
from trainers.options import span
from trainers.schedules import ramp, rise_from_zero


class Asib(AlternatingMethod):
    """The fusion module with its adapters and head (φ), and both steps' objectives."""

    config: AsibConfig
    config_type = AsibConfig

    def __init__(self, config: AsibConfig, dims: Dims) -> None:
        super().__init__(config, dims)
        if not self.fuses:
            return
        token, latent = config.widths(dims.student)
        self.query_adapter = Adapter(dims.student, token)
        self.teacher_adapters = nn.ModuleList(Adapter(dim, token) for dim in dims.teachers)
        self.fusion = IBMBM(
            token,
            token,
            latent,
            config.heads,
            config.logvar_clip,
            config.min_std,
            stochastic=config.bottleneck,
        )
        start = config.synergy_temp_init if config.synergy_temp_learnable else None
        self.head = SynergyHead(latent, dims.classes, config.dropout, log_temperature=start)

    @property
    def fuses(self) -> bool:
        return fused(self.config)

    def fuse(
        self,
        query_BD: Tensor,
        pooled: list[Tensor],
        *,
        sample: bool = False,
        which: list[int] | None = None,
    ) -> Bottleneck:
        tokens = [a(p) for a, p in zip(self.teacher_adapters, pooled, strict=True)]
        tokens = tokens if which is None else [tokens[k] for k in sorted(which)]
        return self.fusion(self.query_adapter(query_BD), torch.stack(tokens, 1), sample=sample)

    @property
    def live_targets(self) -> bool:
        return taught(self.config) and self.config.target_view == "same"

    @property
    def live_query(self) -> bool:
        return self.config.query == "live"

    @property
    def ema(self) -> tuple[float, int] | None:
        c = self.config
        return (c.ema_decay, c.ema_update_every) if taught(c) and c.ema_weight > 0 else None

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

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        if step != "A" or not self.fuses:
            return []
        fixed = "teacher_adapters." if self.config.adapt == "none" else "\0"
        return [(n, p) for n, p in self.named_parameters() if not n.startswith(fixed)]

    # A-Step ---------------------------------------------------------------------------------

    def synergy_only(self, position: StepPosition) -> bool:
        """Whether this A-Step epoch trains on the labels alone."""
        alone = round(span(self.config.synergy_only_epochs, position.step_total))
        return position.in_step < alone

    def beta(self, position: StepPosition) -> float:
        """β of an A-Step epoch; its warm-up counts A-Step epochs over all stages."""
        if not self.config.bottleneck or self.synergy_only(position):
            return 0.0
        length = span(self.config.ib_beta_warmup_epochs, position.total)
        return self.config.ib_beta * rise_from_zero(position.epoch, length)

    def surrogate_weights(self, position: StepPosition) -> tuple[float, float]:
        """(w_kd, α_cccp·ramp): both 0 in the first stage, whose student teaches nothing."""
        if position.stage == 0:
            return 0.0, 0.0
        alone = round(span(self.config.synergy_only_epochs, position.step_total))
        rise = ramp(position.in_step - alone, self.config.cccp_ramp_epochs)
        return self.config.w_kd, self.config.cccp_alpha * rise

    def teacher_terms(
        self,
        student: Outputs,
        teachers: list[Outputs],
        start_logits: list[Tensor] | None,
        labels_B: Tensor,
        position: StepPosition,
    ) -> Terms:
        """CE of g(z), the pull towards the student, the rate, the preservation of teachers."""
        c, sampled = self.config, self.training and self.config.a_step_sample
        latent = self.fuse(student.pooled, [t.pooled for t in teachers], sample=sampled)
        logits = self.head(latent.z)
        ce_B = losses.cross_entropy(logits, labels_B, c.a_label_smoothing)
        seen = _latent_facts(latent) | {metrics.DISTORTION: ce_B.mean()}
        seen[metrics.TRAIN_TOP1] = (logits.argmax(1) == labels_B).float().mean()
        seen[metrics.DISAGREEMENT] = targets.disagreement(torch.stack([t.logits for t in teachers]))
        kept = {}  # teachers that learn stay near their start in every epoch
        if start_logits is not None:
            now = [t.logits for t in teachers]
            kept["preserve"] = c.lambda_pres * preservation(now, start_logits, c.tau)
        if self.synergy_only(position):
            return Terms({"ce": ce_B.mean()} | kept, seen)
        weight_B = self._certainty_weight(latent)
        terms = {"ce": c.w_ce * (weight_B * ce_B).mean()}
        kd_weight, cccp_weight = self.surrogate_weights(position)
        if kd_weight + cccp_weight > 0:
            pull = (weight_B * losses.kd(logits, student.logits.detach(), c.tau)).mean()
            terms |= {"kd": kd_weight * pull, "cccp": cccp_weight * pull}
        if latent.logvar is not None:
            rate_B = losses.gaussian_rate(latent.mu, latent.logvar)
            terms["rate"] = self.beta(position) * rate_B.mean()
        if c.w_feat > 0:
            query = self.query_adapter(student.pooled).detach()
            terms["feat"] = c.w_feat * (weight_B * losses.hint(query, latent.mu)).mean()
        if self.head.log_temperature is not None:
            terms["temperature"] = c.synergy_temp_reg * self.head.log_temperature.square()
            seen[metrics.SYNERGY_TEMPERATURE] = self.head.log_temperature.exp()
        return Terms(terms | kept, seen)

    def _certainty_weight(self, latent: Bottleneck) -> Tensor:
        if latent.logvar is None:
            return torch.ones_like(latent.mu[:, 0])
        precision = targets.certainty(latent.logvar)
        return targets.certainty_weight(precision, self.config.min_cw, self.config.max_cw)

    def clamp_loss(self, loss: Tensor, position: StepPosition) -> Tensor:
        """The A-Step's loss, bounded: scaled to the bound (soft) or clipped at it (hard)."""
        c = self.config
        if position.epoch < span(c.loss_clamp_warmup_epochs, position.total):
            return loss
        if c.loss_clamp == "none":
            return loss
        if c.loss_clamp == "hard":
            return loss.clamp(max=c.loss_clamp_max)
        return loss * (c.loss_clamp_max / loss.detach().clamp(min=c.loss_clamp_max))

    # B-Step ---------------------------------------------------------------------------------

    def kd_weight(self, position: StepPosition) -> float:
        """kd_eff of a B-Step epoch."""
        return self.config.kd_weight(position.epoch, position.total)

    def needs_teachers(self, position: StepPosition) -> bool:
        return self.kd_weight(position) > 0

    def needed_images(self, student: Outputs, labels_B: Tensor, mix: Mix) -> Tensor | None:
        return needed_images(self.config, student.logits, labels_B, mix)

    def student_terms(
        self,
        student: Outputs,
        teacher_outputs: TeacherOutputs | None,
        labels_B: Tensor,
        mix: Mix,
        position: StepPosition,
    ) -> Terms:
        """ce_alpha·CE + kd_eff·mean_i ω_i·τ²·KL(q_i ‖ SM(s_i/τ)), with the ratio cap."""
        c = self.config
        ce = targets.label_loss(student.logits, labels_B, c.label_smoothing, mix)
        weight = self.kd_weight(position)
        if weight == 0 or teacher_outputs is None:
            return Terms({"ce": c.ce_alpha * ce}, {})
        guided = self._guided(teacher_outputs, labels_B, mix, position)
        kept_B, count = kept_samples(c, student.logits, labels_B, mix)
        omega_B = guided.omega * kept_B
        per_image_B = self._distance(student.logits, guided.target, labels_B, mix)
        kd = (omega_B * per_image_B).sum() / count
        scale = torch.ones_like(kd)
        if position.epoch >= span(c.kd_warmup_epochs, position.total):
            scale = (c.kd_max_ratio * ce / kd.clamp_min(1e-12)).detach().clamp(max=1.0)
        terms = {"ce": c.ce_alpha * ce, "kd": weight * scale * kd}
        seen = guided.seen | {
            metrics.KD_SCALE: scale,
            metrics.KD_SHARE: terms["kd"] / (terms["kd"] + terms["ce"]),
        }
        if c.kd_sample_gate:
            seen[metrics.KD_KEPT] = kept_B.mean()
        if c.feat_kd_alpha > 0:
            far_B = self._latent_distance(student, teacher_outputs, mix)
            if far_B is not None:
                terms["feat"] = c.feat_kd_alpha * (omega_B * far_B).sum() / count
        return Terms(terms, seen)

    def _guided(
        self, teacher_outputs: TeacherOutputs, labels_B: Tensor, mix: Mix, position: StepPosition
    ) -> Guidance:
        """Target and weight of every image as the student sees it."""
        c, ema = self.config, teacher_outputs.ema
        guided = self._guided_source(teacher_outputs, labels_B, mix, position)
        if c.target_view != "two_view" or mix.partner is None:
            return guided
        partners = guided
        if ema is not None and c.ema_view == "first":
            plain = _without_ema(teacher_outputs)
            partners = self._guided_source(plain, labels_B, mix, position)
        target_BC = mix.blend(guided.target, partners.target)
        return guided._replace(target=target_BC, omega=mix.blend(guided.omega, partners.omega))

    def _guided_source(
        self, teacher_outputs: TeacherOutputs, labels_B: Tensor, mix: Mix, position: StepPosition
    ) -> Guidance:
        """Target and weight of every image that the teachers saw; under a placebo of the fusion
        those of a donor, routed by the donor's own label."""
        c, donor = self.config, teacher_outputs.donor
        as_shown = mix if c.target_view == "same" else UNMIXED
        found = guidance(c, teacher_outputs, labels_B, as_shown, position)
        if donor is not None:
            assert self.dims.labels is not None
            assert donor.image is not None
            donor_labels = self.dims.labels[donor.image]
            found = found.where_fused(guidance(c, donor, donor_labels, UNMIXED, position))
        return found.of_batch(teacher_outputs.at, len(labels_B))

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
        self, student_BC: Tensor, target_BC: Tensor, labels_B: Tensor, mix: Mix
    ) -> Tensor:
        """τ²·KL(q ‖ SM(s/τ)), or its decoupled form with the labels that the image shows. [B]."""
        c = self.config
        if not c.use_dkd_with_synergy:
            return losses.kl_to(target_BC, student_BC, c.tau)
        logits_BC = targets.logits_of(target_BC, c.tau)

        def dkd(y_B: Tensor) -> Tensor:
            return losses.dkd(
                student_BC, logits_BC, y_B, alpha=c.dkd_alpha, beta=c.dkd_beta, temperature=c.tau
            )

        if mix.partner is None or c.target_view == "clean":
            return dkd(labels_B)
        return mix.lam * dkd(labels_B) + (1 - mix.lam) * dkd(labels_B[mix.partner])


def _without_ema(found: TeacherOutputs) -> TeacherOutputs:
    donor = found.donor and found.donor._replace(ema=None)
    return found._replace(ema=None, donor=donor)


def _latent_facts(latent: Bottleneck) -> dict[str, Tensor]:
    if latent.logvar is None:
        return {}
    sigma = (latent.logvar.detach() / 2).exp()
    return {
        metrics.RATE: losses.gaussian_rate(latent.mu, latent.logvar).mean(),
        metrics.SIGMA_MEAN: sigma.mean(),
        metrics.SIGMA_MIN: sigma.min(),
        metrics.SIGMA_MAX: sigma.max(),
    }
