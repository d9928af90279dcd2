"""Options that the rungs of the ladder use: meaning, default, range, and where each counts."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.methods.asib.switches import Switches, averaged, fused, taught
from trainers.options import When, option

_bottleneck = When("there is fusion, and `method.bottleneck`", lambda m: fused(m) and m.bottleneck)
_scaled = When(
    "there is fusion, and `method.residual` is off", lambda m: fused(m) and not m.residual
)
_stages = When(
    "there is fusion, and `method.num_stages` is above 1", lambda m: fused(m) and m.num_stages > 1
)
_freezes = When(
    "a stage of `method.student_levels` freezes blocks",
    lambda m: any(level != -1 for level in m.student_levels),
)
_placebo = When("`method.placebo` is not none", lambda m: m.placebo != "none")
_backbone = When(
    "there is fusion, and `method.adapt` is backbone", lambda m: fused(m) and m.adapt == "backbone"
)


@dataclass
class RungOptions(Switches):
    """Options that the rungs use. A field that cannot change the results of a configuration is not
    part of its run key (`when`)."""

    name: str = option("asib", "the method")
    # B-Step: what the student learns from.
    ce_alpha: float = option(0.7, "weight of the labels' cross-entropy", low=0)
    label_smoothing: float = option(0.05, "label smoothing of the B-Step", low=0, high=1)
    kd_target: str = option(
        "auto",
        "none: no teacher; self: the student of CE at the same seed; teacher: one of them; avg: "
        "their weighted mean; weighted_conf: their mean, each weighted per sample by its "
        "confidence; stack: a regression on all teachers' features, its penalty chosen on "
        "validation; synergy: the fusion's logits when the gate is open; auto: per sample, "
        "whichever of fusion and mean has the lower cross-entropy",
        choices=("none", "self", "teacher", "avg", "weighted_conf", "stack", "synergy", "auto"),
    )
    kd_alpha: float = option(0.3, "weight of the distillation term", low=0, when=taught)
    tau: float = option(4.0, "temperature of the distillation term", low=1e-2, when=taught)
    tau_syn: float = option(4.0, "temperature of synergy targets", low=1e-2, when=fused)
    teacher_weights: list[float] | None = option(
        None, "weights of the average (null: equal), normalised to sum 1", low=0, when=averaged
    )
    target_view: str = option(
        "two_view",
        "two_view: mixed targets of both source images; clean: the first source's target only "
        "(for reproduction: it does not agree with a mixed input); same: all networks run live on "
        "the mixed image (slower)",
        choices=("two_view", "clean", "same"),
        when=taught,
    )
    kd_uncertainty_weight: float = option(
        0.5, "b of the entropy weight 1/(1+b·H/ln C) of a sample; 0: off", low=0, when=taught
    )
    kd_uncertainty_min: float = option(
        0.2, "smallest value of the entropy weight", low=0, high=1, when=taught
    )
    kd_warmup_epochs: float = option(
        0.125,
        "linear rise of the KD weight: B-Step epochs, or a fraction below 1",
        low=0,
        when=taught,
    )
    kd_cooldown_epochs: float = option(
        0.25,
        "linear fall of the KD weight to 0 at the end: epochs, or a fraction below 1",
        low=0,
        when=taught,
    )
    kd_max_ratio: float = option(
        1.25, "largest KD term after the warm-up, as a multiple of the CE term", low=0, when=taught
    )
    # The fusion module.
    token_dim: int | None = option(
        None, "token width of the fusion (null: 512, or 256 for narrow students)", low=1, when=fused
    )
    latent_dim: int | None = option(
        None, "latent width of the fusion (null: token_dim)", low=1, when=fused
    )
    heads: int = option(4, "attention heads of the fusion; divides latent_dim", low=1, when=fused)
    dropout: float = option(0.05, "dropout of the synergy head", low=0, high=0.99, when=fused)
    synergy_logit_scale: float = option(
        0.8, "scale of synergy logits where they are a target", low=0, when=_scaled
    )
    enable_kd_after_syn_acc: float = option(
        0.65, "synergy accuracy on validation from which the gate opens", low=0, high=1, when=fused
    )
    gate_on: str = option(
        "raw",
        "accuracy that opens the gate: raw, of the restored state, or its moving average",
        choices=("raw", "ema"),
        when=fused,
    )
    # The information bottleneck.
    bottleneck: bool = option(
        True, "information bottleneck: log-variance head, sampling, rate, certainty", when=fused
    )
    a_step_sample: bool = option(
        True, "the A-Step's cross-entropy sees z (false: mu; σ then collapses)", when=_bottleneck
    )
    ib_beta: float = option(1e-3, "β, weight of the rate", low=0, when=_bottleneck)
    ib_beta_warmup_epochs: float = option(
        0.125,
        "linear rise of β from 0: A-Step epochs, or a fraction below 1",
        low=0,
        when=_bottleneck,
    )
    logvar_clip: float = option(
        4.0, "largest |log-variance| of the latent", low=0, when=_bottleneck
    )
    min_std: float = option(0.01, "smallest σ of the latent", low=1e-6, when=_bottleneck)
    min_cw: float = option(
        0.5, "smallest certainty weight of a sample", low=0, high=1, when=_bottleneck
    )
    max_cw: float = option(1.5, "largest certainty weight of a sample", low=1, when=_bottleneck)
    # The A-Step.
    num_stages: int = option(4, "alternations of A-Step and B-Step", low=1, when=fused)
    cccp_alpha: float = option(0.15, "A-Step weight of the CCCP surrogate", low=0, when=_stages)
    cccp_ramp_epochs: float = option(
        2.0, "linear rise of the surrogate's weight in each A-Step, epochs", low=0, when=_stages
    )
    synergy_only_epochs: float = option(
        0.25, "CE-only start of each A-Step: epochs, or a fraction below 1", low=0, when=fused
    )
    w_ce: float = option(1.0, "A-Step weight of the cross-entropy", low=0, when=fused)
    w_kd: float = option(
        0.3, "A-Step weight of KL(student ‖ synergy), off in stage 1", low=0, when=_stages
    )
    w_feat: float = option(0.0, "A-Step weight of ‖query - mu‖²/d", low=0, when=fused)
    a_label_smoothing: float = option(
        0.05, "label smoothing of the A-Step", low=0, high=1, when=fused
    )
    a_lr: float = option(1e-4, "learning rate of the A-Step (AdamW)", low=0, when=fused)
    a_weight_decay: float = option(1e-4, "A-Step weight decay", low=0, when=fused)
    ib_mbm_lr_factor: float = option(
        1.0, "learning rate factor of fusion module and head", low=0, when=fused
    )
    a_clip: float = option(0.5, "A-Step gradient norm limit; 0: none", low=0, when=fused)
    loss_clamp: str = option(
        "soft",
        "how the A-Step loss is bounded: soft keeps the gradient's direction, hard cuts it",
        choices=("soft", "hard", "none"),
        when=fused,
    )
    loss_clamp_max: float = option(100.0, "upper bound of the A-Step loss", low=1e-6, when=fused)
    loss_clamp_warmup_epochs: float = option(
        0.0,
        "A-Step epochs before the loss is bounded, or a fraction below 1 of them all",
        low=0,
        when=fused,
    )
    teacher_eval_every: int = option(2, "A-Step epochs between evaluations", low=1, when=fused)
    synergy_ema_alpha: float = option(
        0.8, "decay of the moving average of the synergy accuracy", low=0, high=1, when=fused
    )
    # Teacher adaptation.
    adapt: str = option(
        "adapters",
        "adapters: teacher adapters learn in the A-Step; backbone: the teachers' top blocks too; "
        "none: teacher adapters stay random projections (for reproduction)",
        choices=("none", "adapters", "backbone"),
        when=fused,
    )
    teacher_levels: list[int] = option(
        [1],
        "unfrozen top blocks of the teachers: one value for all stages, one for every stage, or "
        "one for each of level_starts; -1: all blocks, 0: the head only",
        low=-1,
        when=_backbone,
    )
    lambda_pres: float = option(
        1.0,
        "weight of the distance to the teacher's logits before it adapts",
        low=0,
        when=_backbone,
    )
    # Partial freezing of the student.
    student_levels: list[int] = option(
        [-1],
        "the student's unfrozen top blocks, listed as in teacher_levels; -1: all blocks, 0: the "
        "head only",
        low=-1,
        when=_freezes,
    )
    level_starts: list[float] | None = option(
        None,
        "fractions of the stages from which the levels hold, so that they follow the number of "
        "stages: [0, 0.5] (null: levels are listed stage by stage)",
        low=0,
        high=1,
        identity=False,
    )
    freeze_bn: bool = option(
        False, "freeze the BatchNorm statistics of the student's frozen blocks too", when=_freezes
    )
    # Controls.
    placebo: str = option(
        "none",
        "control with the same compute and less information: teachers: the teachers' logits of "
        "wrong classes shuffled; tokens: the fusion reads the teachers' features of another image, "
        "in both steps; image: what the fusion teaches, its weight and its routing are another "
        "image's; class: another image's of the same class; image_by_label: the fusion's logits "
        "of another image, routed by the image's own label, so that those of its class are kept",
        choices=("none", "teachers", "tokens", "image", "class", "image_by_label"),
        when=_placebo,
    )
