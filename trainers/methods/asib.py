"""ASIB: Adaptive Synergy Information-Bottleneck distillation, and the ladder's controls.

The controls CE and KD are this method with factors switched off, so that adjacent rungs of the
ladder differ in one factor and in nothing else. Shapes: B examples, C classes, D latent width,
K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainers import losses, targets
from trainers.bottleneck import IBMBM, Adapter, Bottleneck, SynergyHead
from trainers.loop import Terms
from trainers.methods.base import Dims, Method, Moment, Teaching
from trainers.mixing import Mix
from trainers.models import Outputs, default_token_dim
from trainers.options import option, span
from trainers.schedules import even_split, kd_weight, ramp, rise_from_zero


def _kd(m: Any) -> bool:
    return m.kd_target != "none"


def _fused(m: Any) -> bool:
    return m.kd_target in ("synergy", "auto")


def _bottleneck(m: Any) -> bool:
    return _fused(m) and m.bottleneck


def _stages(m: Any) -> bool:
    return _fused(m) and m.num_stages > 1


def _backbone(m: Any) -> bool:
    return _fused(m) and m.adapt == "backbone"


@dataclass
class AsibConfig:
    """Every switch of ASIB. A field that cannot change a configuration's results is no part of
    its identity (`when`)."""

    name: str = option("asib", "the method")
    # B-Step: what the student learns from.
    ce_alpha: float = option(0.7, "weight of the labels' cross-entropy", low=0)
    label_smoothing: float = option(0.05, "label smoothing of the B-Step", low=0, high=1)
    kd_target: str = option(
        "auto",
        "none: no teacher; avg: the teachers' weighted mean; synergy: the fusion's logits when "
        "the gate is open; auto: per sample, whichever of both has the lower cross-entropy",
        choices=("none", "avg", "synergy", "auto"),
    )
    kd_alpha: float = option(0.3, "weight of the distillation term", low=0, when=_kd)
    tau: float = option(4.0, "temperature", low=1e-2, when=_kd)
    tau_syn: float = option(4.0, "temperature of synergy targets", low=1e-2, when=_fused)
    teacher_weights: list[float] | None = option(
        None, "weights of the average (null: equal), normalised to sum 1", when=_kd
    )
    target_view: str = option(
        "two_view",
        "two_view: mixed targets of both source images; clean: the first source's target only "
        "(for reproduction: it does not agree with a mixed input)",
        choices=("two_view", "clean"),
        when=_kd,
    )
    kd_uncertainty_weight: float = option(
        0.5, "b of the weight 1/(1+b·H/ln C); 0: off", low=0, when=_kd
    )
    kd_uncertainty_min: float = option(0.2, "floor of that weight", low=0, high=1, when=_kd)
    kd_warmup_epochs: float = option(
        0.125, "linear rise of the KD weight: B-Step epochs, or a fraction below 1", low=0, when=_kd
    )
    kd_cooldown_epochs: float = option(
        0.25, "linear fall of the KD weight at the end, to 0", low=0, when=_kd
    )
    kd_max_ratio: float = option(
        1.25, "after the warm-up KD is scaled down to this × CE", low=0, when=_kd
    )
    # The fusion module.
    token_dim: int | None = option(
        None, "token width (null: 512, or 256 for narrow students)", low=1, when=_fused
    )
    latent_dim: int | None = option(None, "latent width (null: token_dim)", low=1, when=_fused)
    heads: int = option(4, "attention heads; divides latent_dim", low=1, when=_fused)
    dropout: float = option(0.05, "dropout of the synergy head", low=0, high=0.99, when=_fused)
    synergy_logit_scale: float = option(
        0.8, "scale of synergy logits where they are a target", low=0, when=_fused
    )
    enable_kd_after_syn_acc: float = option(
        0.65, "gate: least synergy accuracy on validation, a fraction", low=0, high=1, when=_fused
    )
    gate_on: str = option(
        "raw",
        "what the gate reads: raw accuracy of the restored state, or its moving average",
        choices=("raw", "ema"),
        when=_fused,
    )
    # The information bottleneck.
    bottleneck: bool = option(True, "log-variance head, sampling, rate, certainty", when=_fused)
    a_step_sample: bool = option(
        True, "the A-Step's cross-entropy sees z (false: mu; σ then collapses)", when=_bottleneck
    )
    ib_beta: float = option(1e-3, "β, weight of the rate", low=0, when=_bottleneck)
    ib_beta_warmup_epochs: float = option(
        0.125, "linear rise of β from 0: A-Step epochs, or a fraction below 1", low=0,
        when=_bottleneck,
    )  # fmt: skip
    logvar_clip: float = option(4.0, "bound of |log-variance|", low=0, when=_bottleneck)
    min_std: float = option(0.01, "floor of σ", low=1e-6, when=_bottleneck)
    min_cw: float = option(0.5, "least certainty weight", low=0, high=1, when=_bottleneck)
    max_cw: float = option(1.5, "largest certainty weight", low=1, when=_bottleneck)
    # The A-Step.
    num_stages: int = option(4, "alternations of A-Step and B-Step", low=1, when=_fused)
    cccp_alpha: float = option(0.15, "weight of the surrogate", low=0, when=_stages)
    cccp_ramp_epochs: float = option(
        2.0, "its linear rise in each A-Step, epochs", low=0, when=_stages
    )
    synergy_only_epochs: float = option(
        0.25, "CE-only start of each A-Step: epochs, or a fraction below 1", low=0, when=_fused
    )
    w_ce: float = option(1.0, "A-Step weight of the cross-entropy", low=0, when=_fused)
    w_kd: float = option(
        0.3, "A-Step weight of KL(student ‖ synergy), off in stage 1", low=0, when=_stages
    )
    w_feat: float = option(0.0, "A-Step weight of ‖query - mu‖²/d", low=0, when=_fused)
    a_label_smoothing: float = option(
        0.05, "label smoothing of the A-Step", low=0, high=1, when=_fused
    )
    a_lr: float = option(1e-4, "A-Step learning rate (AdamW)", low=0, when=_fused)
    a_weight_decay: float = option(1e-4, "A-Step weight decay", low=0, when=_fused)
    ib_mbm_lr_factor: float = option(
        1.0, "learning rate factor of fusion module and head", low=0, when=_fused
    )
    a_clip: float = option(0.5, "A-Step gradient norm limit; 0: none", low=0, when=_fused)
    loss_clamp: str = option(
        "soft",
        "bound of the A-Step's loss: soft keeps the gradient's direction, hard cuts it",
        choices=("soft", "hard", "none"),
        when=_fused,
    )
    loss_clamp_max: float = option(100.0, "that bound", low=0, when=_fused)
    loss_clamp_warmup_epochs: float = option(
        0.0, "A-Step epochs before the bound holds", low=0, when=_fused
    )
    teacher_eval_every: int = option(2, "A-Step epochs between evaluations", low=1, when=_fused)
    synergy_ema_alpha: float = option(
        0.8, "weight of the old value in the moving average", low=0, high=1, when=_fused
    )
    # Teacher adaptation.
    adapt: str = option(
        "adapters",
        "adapters: they learn in the A-Step; backbone: the teachers' top blocks too; none: "
        "teacher adapters stay random projections (for reproduction)",
        choices=("none", "adapters", "backbone"),
        when=_fused,
    )
    teacher_levels: list[int] = option(
        [1], "unfrozen top blocks of the teachers per stage (the last value goes on)",
        when=_backbone,
    )  # fmt: skip
    lambda_pres: float = option(
        1.0, "weight of staying near the teacher's own starting logits", low=0, when=_backbone
    )

    def widths(self, student_dim: int) -> tuple[int, int]:
        """(token width, latent width) for a student of that pooled width."""
        token = self.token_dim or default_token_dim(student_dim)
        return token, self.latent_dim or token

    def a_step_epochs(self, budget: int) -> list[int]:
        """Epochs of each A-Step: the budget shared among the stages (none without fusion)."""
        return even_split(budget, self.num_stages) if _fused(self) else []

    def uses_gate(self) -> bool:
        """Whether a synergy accuracy is measured and read."""
        return _fused(self)

    def stage_count(self) -> int:
        return self.num_stages if _fused(self) else 1

    def mistakes(self, adapt_epochs: int, student_dim: int | None) -> list[str]:
        """Contradictions between values, each one sentence."""
        if not _fused(self):
            return []
        found = []
        shortest = min(self.a_step_epochs(adapt_epochs))
        alone = round(span(self.synergy_only_epochs, shortest))
        if alone >= shortest:
            found.append(
                f"method.synergy_only_epochs={self.synergy_only_epochs:g} leaves nothing of an "
                f"A-Step of {shortest} epochs (budget.adapt_epochs={adapt_epochs} over "
                f"method.num_stages={self.num_stages}): the bottleneck would never train"
            )
        latent = self.latent_dim or self.token_dim
        if student_dim is not None:
            token, latent = self.widths(student_dim)
            if self.w_feat > 0 and token != latent:
                found.append("method.w_feat needs method.latent_dim equal to method.token_dim")
        if latent is not None and latent % self.heads:
            found.append(
                f"method.latent_dim={latent} is not a multiple of method.heads={self.heads}"
            )
        return found


class Asib(Method):
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
            token, token, latent, config.heads, config.logvar_clip, config.min_std,
            stochastic=config.bottleneck,
        )  # fmt: skip
        self.head = SynergyHead(latent, dims.classes, config.dropout)

    @property
    def fuses(self) -> bool:
        return _fused(self.config)

    def fuse(self, query_BD: Tensor, pooled: list[Tensor], *, sample: bool = False) -> Bottleneck:
        """The latent of a student's pooled features and K teachers' pooled features."""
        tokens = [a(p) for a, p in zip(self.teacher_adapters, pooled, strict=True)]
        return self.fusion(self.query_adapter(query_BD), torch.stack(tokens, 1), sample=sample)

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        if step != "A" or not self.fuses:
            return []
        fixed = "teacher_adapters." if self.config.adapt == "none" else "\0"
        return [(n, p) for n, p in self.named_parameters() if not n.startswith(fixed)]

    # A-Step ---------------------------------------------------------------------------------

    def synergy_only(self, moment: Moment) -> bool:
        """Whether this A-Step epoch trains on the labels alone."""
        alone = round(span(self.config.synergy_only_epochs, moment.step_total))
        return moment.in_step < alone

    def beta(self, moment: Moment) -> float:
        """β of an A-Step epoch; its warm-up counts A-Step epochs over all stages."""
        if not self.config.bottleneck or self.synergy_only(moment):
            return 0.0
        length = span(self.config.ib_beta_warmup_epochs, moment.total)
        return self.config.ib_beta * rise_from_zero(moment.epoch, length)

    def surrogate_weights(self, moment: Moment) -> tuple[float, float]:
        """(w_kd, α_cccp·ramp): both 0 in the first stage, whose student teaches nothing."""
        if moment.stage == 0:
            return 0.0, 0.0
        alone = round(span(self.config.synergy_only_epochs, moment.step_total))
        rise = ramp(moment.in_step - alone, self.config.cccp_ramp_epochs)
        return self.config.w_kd, self.config.cccp_alpha * rise

    def teacher_terms(
        self,
        student: Outputs,
        teachers: list[Outputs],
        start_logits: list[Tensor] | None,
        labels_B: Tensor,
        moment: Moment,
    ) -> Terms:
        """CE of g(z), the pull towards the student, the rate, the preservation of teachers."""
        c, sampled = self.config, self.training and self.config.a_step_sample
        latent = self.fuse(student.pooled, [t.pooled for t in teachers], sample=sampled)
        logits = self.head(latent.z)
        ce_B = losses.cross_entropy(logits, labels_B, c.a_label_smoothing)
        seen = _latent_facts(latent) | {"bottleneck/distortion": ce_B.mean()}
        seen["train/top1"] = (logits.argmax(1) == labels_B).float().mean()
        seen["kd/teacher_disagreement"] = targets.disagreement(
            torch.stack([t.logits for t in teachers])
        )
        kept = {}  # teachers that learn stay near their start in every epoch
        if start_logits is not None:
            now = [t.logits for t in teachers]
            kept["preserve"] = c.lambda_pres * preservation(now, start_logits, c.tau)
        if self.synergy_only(moment):
            return Terms({"ce": ce_B.mean()} | kept, seen)
        weight_B = self._certainty_weight(latent)
        terms = {"ce": c.w_ce * (weight_B * ce_B).mean()}
        kd_weight, cccp_weight = self.surrogate_weights(moment)
        if kd_weight + cccp_weight > 0:
            pull = (weight_B * losses.kd(logits, student.logits.detach(), c.tau)).mean()
            terms |= {"kd": kd_weight * pull, "cccp": cccp_weight * pull}
        if latent.logvar is not None:
            rate_B = losses.gaussian_rate(latent.mu, latent.logvar)
            terms["rate"] = self.beta(moment) * rate_B.mean()
        if c.w_feat > 0:
            query = self.query_adapter(student.pooled).detach()
            terms["feat"] = c.w_feat * (weight_B * losses.hint(query, latent.mu)).mean()
        return Terms(terms | kept, seen)

    def _certainty_weight(self, latent: Bottleneck) -> Tensor:
        if latent.logvar is None:
            return torch.ones_like(latent.mu[:, 0])
        precision = targets.certainty(latent.logvar)
        return targets.certainty_weight(precision, self.config.min_cw, self.config.max_cw)

    def clamp_loss(self, loss: Tensor, moment: Moment) -> Tensor:
        """The A-Step's loss, bounded: scaled to the bound (soft) or cut at it (hard)."""
        c = self.config
        if c.loss_clamp == "none" or moment.epoch < c.loss_clamp_warmup_epochs:
            return loss
        if c.loss_clamp == "hard":
            return loss.clamp(max=c.loss_clamp_max)
        return loss * (c.loss_clamp_max / loss.detach().clamp(min=c.loss_clamp_max))

    # B-Step ---------------------------------------------------------------------------------

    def kd_weight(self, moment: Moment) -> float:
        """kd_eff of a B-Step epoch."""
        c = self.config
        if not _kd(c):
            return 0.0
        return kd_weight(
            moment.epoch, moment.total, alpha=c.kd_alpha,
            warmup=span(c.kd_warmup_epochs, moment.total),
            cool=span(c.kd_cooldown_epochs, moment.total),
        )  # fmt: skip

    def needs_teachers(self, moment: Moment) -> bool:
        return self.kd_weight(moment) > 0

    def student_terms(
        self,
        student: Outputs,
        teaching: Teaching | None,
        labels_B: Tensor,
        mix: Mix,
        moment: Moment,
    ) -> Terms:
        """ce_alpha·CE + kd_eff·mean_i ω_i·τ²·KL(q_i ‖ SM(s_i/τ)), with the ratio cap."""
        c = self.config
        labels_BC = targets.soft_labels(labels_B, self.dims.classes, c.label_smoothing, mix)
        ce = targets.soft_cross_entropy(student.logits, labels_BC).mean()
        weight = self.kd_weight(moment)
        if weight == 0 or teaching is None:
            return Terms({"ce": c.ce_alpha * ce}, {})
        target_BC, omega_B, seen = self.clean_targets(teaching, labels_B)
        if c.target_view == "two_view":
            target_BC, omega_B = mix.blend(target_BC), mix.blend(omega_B)
        kd = (omega_B * losses.kl_to(target_BC, student.logits, c.tau)).mean()
        scale = torch.ones_like(kd)
        if moment.epoch >= span(c.kd_warmup_epochs, moment.total):
            scale = (c.kd_max_ratio * ce / kd.clamp_min(1e-12)).detach().clamp(max=1.0)
        terms = {"ce": c.ce_alpha * ce, "kd": weight * scale * kd}
        seen |= {"kd/scale": scale, "kd/share": (terms["kd"] / (terms["kd"] + terms["ce"]))}
        return Terms(terms, seen)

    def clean_targets(
        self, teaching: Teaching, labels_B: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Target probabilities [B, C] and weights ω [B] of clean source images, and what was
        seen. Without synergy logits (gate closed) this is the teachers' average."""
        c = self.config
        average = targets.average_logits(teaching.teachers, c.teacher_weights)
        seen = {"kd/teacher_disagreement": targets.disagreement(teaching.teachers)}
        logits, target = average, torch.softmax(average / c.tau, -1)
        chosen = None
        if teaching.synergy is not None:
            chosen = torch.ones_like(labels_B, dtype=torch.bool)
            if c.kd_target == "auto":
                chosen = targets.prefer_synergy(teaching.synergy, average, labels_B)
            scaled = teaching.synergy * (c.synergy_logit_scale / c.tau_syn)
            target = torch.where(chosen[:, None], torch.softmax(scaled, -1), target)
            logits = torch.where(chosen[:, None], teaching.synergy, average)
            seen["synergy/share"] = chosen.float().mean()
        omega_B = torch.ones_like(target[:, 0])
        if c.kd_uncertainty_weight > 0:
            omega_B = targets.uncertainty_weight(
                logits, c.kd_uncertainty_weight, c.kd_uncertainty_min
            )
        if chosen is not None and teaching.certainty is not None:
            sure_B = targets.certainty_weight(teaching.certainty, c.min_cw, c.max_cw)
            omega_B = omega_B * torch.where(chosen, sure_B, 1.0)
        return target, omega_B, seen


def preservation(logits: list[Tensor], start: list[Tensor], tau: float) -> Tensor:
    """mean over teachers and images of τ²·KL(SM(t⁰/τ) ‖ SM(t/τ)). Scalar."""
    return torch.stack(
        [losses.kd(now, then, tau).mean() for now, then in zip(logits, start, strict=True)]
    ).mean()


def _latent_facts(latent: Bottleneck) -> dict[str, Tensor]:
    if latent.logvar is None:
        return {}
    sigma = (latent.logvar.detach() / 2).exp()
    return {
        "bottleneck/rate": losses.gaussian_rate(latent.mu, latent.logvar).mean(),
        "bottleneck/sigma_mean": sigma.mean(),
        "bottleneck/sigma_min": sigma.min(),
        "bottleneck/sigma_max": sigma.max(),
    }
