"""Switches of ASIB that no rung of the ladder turns on. Each is one override away, and no part of a
run's identity while it is off."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.methods.base import MethodConfig
from trainers.options import When, option

taught = When("`method.kd_target` is not none", lambda m: m.kd_target != "none")
fused = When("`method.kd_target` is synergy or auto", lambda m: m.kd_target in ("synergy", "auto"))
_one_teacher = When("`method.kd_target` is teacher", lambda m: m.kd_target == "teacher")
_stacks = When("`method.kd_target` is stack", lambda m: m.kd_target == "stack")
_confidence = When("`method.kd_target` is weighted_conf", lambda m: m.kd_target == "weighted_conf")
averaged = When(
    "`method.kd_target` is avg, synergy or auto",
    lambda m: m.kd_target in ("avg", "synergy", "auto"),
)
fades = When(
    "there is an average, and `method.teacher2_weight_decay_len` is above 0",
    lambda m: averaged(m) and m.teacher2_weight_decay_len > 0,
)
_blends = When(
    "`method.kd_ens_alpha` and `method.kd_warmup_epochs` are above 0",
    lambda m: fused(m) and m.kd_ens_alpha > 0 and m.kd_warmup_epochs > 0,
)
_query = When("`method.query` is not stage", lambda m: fused(m) and m.query != "stage")
_reads_query = When(
    "there is fusion, and `method.query` is not none", lambda m: fused(m) and m.query != "none"
)
disagrees = When(
    "a disagreement weight is not 1",
    lambda m: taught(m) and (m.disagree_lambda_high, m.disagree_lambda_low) != (1.0, 1.0),
)
_guards = When("`method.kd_label_guard` is on", lambda m: taught(m) and m.kd_label_guard)
_gates = When("`method.kd_sample_gate` is on", lambda m: taught(m) and m.kd_sample_gate)
_features = When("`method.feat_kd_alpha` is above 0", lambda m: fused(m) and m.feat_kd_alpha > 0)
_dkd = When("`method.use_dkd_with_synergy` is on", lambda m: taught(m) and m.use_dkd_with_synergy)
_ema_teaches = When("`method.ema_weight` is above 0", lambda m: taught(m) and m.ema_weight > 0)
_ema = When(
    "`method.ema_weight` is above 0, or `method.query` is ema",
    lambda m: _ema_teaches(m) or (fused(m) and m.query == "ema"),
)
_temperature = When(
    "`method.synergy_temp_learnable` is on", lambda m: fused(m) and m.synergy_temp_learnable
)
_samples = When(
    "there is a bottleneck, and `method.use_mu_for_kd` is off",
    lambda m: fused(m) and m.bottleneck and not m.use_mu_for_kd,
)
_some_teachers = When(
    "`method.synergy_eval_teacher_indices` is set",
    lambda m: fused(m) and m.synergy_eval_teacher_indices is not None,
)


@dataclass
class Switches(MethodConfig):
    """Switches that are off by default."""

    # Targets.
    stack_features: str = option(
        "pooled",
        "what the regression of kd_target=stack reads of every teacher",
        choices=("pooled", "logits"),
        when=_stacks,
    )
    teacher_index: int = option(
        0, "number of the teacher of kd_target=teacher", low=0, when=_one_teacher
    )
    tau_gate: float = option(
        1.0, "temperature of the confidences that weight the teachers", low=1e-2, when=_confidence
    )
    teacher2_weight_decay_start: float = option(
        0.0,
        "B-Step epoch (or fraction below 1) from which teacher 1's weight falls",
        low=0,
        when=fades,
    )
    teacher2_weight_decay_len: float = option(
        0.0,
        "epochs (or fraction) in which teacher 1's weight falls to 0; 0: never",
        low=0,
        when=fades,
    )
    kd_ens_alpha: float = option(
        0.0,
        "share of the average in routed targets at the start; 0 after the KD warm-up",
        low=0,
        high=1,
        when=_blends,
    )
    query: str = option(
        "stage",
        "student whose features query the fusion: stage: as at the start of the stage; live: as it "
        "is now, with a second forward pass per step; ema: its moving average at the start of the "
        "stage; none: no student, a learned constant in their place (what a student has learned by "
        "heart cannot leak into the fusion)",
        choices=("stage", "live", "ema", "none"),
        when=_query,
    )
    query_dropout: float = option(
        0.0,
        "probability that an image of the A-Step is fused with a learned constant in place of the "
        "student's features",
        low=0,
        high=0.99,
        when=_reads_query,
        added=True,
    )
    ema_weight: float = option(
        0.0,
        "weight of the student's moving average as a teacher (each teacher: 1); 0: none",
        low=0,
        when=_ema_teaches,
    )
    ema_decay: float = option(
        0.999, "decay of the student's moving average", low=0, high=1, when=_ema
    )
    ema_update_every: int = option(
        1, "steps between updates of the student's moving average", low=1, when=_ema
    )
    ema_view: str = option(
        "both",
        "images of a mixed pair whose target has the student's average: both, or the first alone",
        choices=("both", "first"),
        when=_ema_teaches,
        added=True,
    )
    use_dkd_with_synergy: bool = option(
        False, "decoupled KD instead of the KL divergence", when=_dkd
    )
    dkd_alpha: float = option(1.0, "weight of the target class in decoupled KD", low=0, when=_dkd)
    dkd_beta: float = option(8.0, "weight of the other classes in decoupled KD", low=0, when=_dkd)
    feat_kd_alpha: float = option(
        0.0,
        "weight of Huber(query adapter of the student, clipped mean of the fusion)",
        low=0,
        when=_features,
    )
    feat_kd_clip: float = option(
        3.0,
        "largest size of the fusion's mean as a feature target",
        low=0,
        when=_features,
        added=True,
    )
    feat_kd_huber_beta: float = option(
        1.0,
        "distance from which Huber's loss of features is linear",
        low=1e-6,
        when=_features,
        added=True,
    )
    # Weights of samples.
    disagree_mode: str = option(
        "pred",
        "samples on which teachers disagree: pred, their top-1 differ; both_wrong, none is right",
        choices=("pred", "both_wrong"),
        when=disagrees,
    )
    disagree_lambda_high: float = option(
        1.0, "weight of samples on which the teachers disagree", low=0, when=disagrees
    )
    disagree_lambda_low: float = option(1.0, "weight of the other samples", low=0, when=disagrees)
    kd_label_guard: bool = option(
        False, "weight samples by the target's probability of the label", when=_guards
    )
    kd_correct_min: float = option(
        0.0, "least weight of a sample by the label guard", low=0, high=1, when=_guards
    )
    kd_sample_gate: bool = option(
        False, "distil only samples of which the student is not sure yet", when=_gates
    )
    kd_sample_thr: float = option(
        0.85, "probability of the label below which a sample is kept", low=0, high=1, when=_gates
    )
    kd_sample_min_ratio: float = option(
        0.1, "least share of a batch that the sample gate keeps", low=0, high=1, when=_gates
    )
    kd_sample_max_ratio: float = option(
        0.5,
        "largest share that the sample gate keeps, the hardest samples first",
        low=0,
        high=1,
        when=_gates,
    )
    kd_sample_reweight: bool = option(
        False, "average over the kept samples, not the batch", when=_gates
    )
    # The fusion.
    folds: int = option(
        1,
        "cross-fitting: so many fusions, each trained without one fold of the labelled images; the "
        "logits of an image are of the fusion that has not seen it, of all others their mean; 1: "
        "one fusion",
        low=1,
        high=20,
        when=fused,
        added=True,
    )
    residual: bool = option(
        False,
        "synergy logits are the teachers' average plus g, which starts at 0: the fusion starts as "
        "the average",
        when=fused,
        added=True,
    )
    use_mu_for_kd: bool = option(
        True,
        "synergy logits of the B-Step are g(mu); false: g(z), sampled once a stage",
        when=_samples,
    )
    synergy_temp_learnable: bool = option(
        False, "divide synergy logits by a learned temperature", when=_temperature
    )
    synergy_temp_init: float = option(
        0.0, "initial logarithm of the learned temperature", low=-9, high=9, when=_temperature
    )
    synergy_temp_reg: float = option(
        1e-4,
        "penalty on the squared logarithm of the learned temperature",
        low=0,
        when=_temperature,
    )
    synergy_eval_teacher_indices: list[int] | None = option(
        None,
        "teachers whose tokens the fusion sees where synergy accuracy is measured (null: all)",
        low=0,
        when=_some_teachers,
    )

    def switch_errors(self) -> list[str]:
        """Contradictions between switches, each one sentence."""
        found = []
        if self.kd_sample_min_ratio > self.kd_sample_max_ratio:
            found.append(
                f"method.kd_sample_min_ratio={self.kd_sample_min_ratio:g} is above "
                f"method.kd_sample_max_ratio={self.kd_sample_max_ratio:g}"
            )
        numbers = self.synergy_eval_teacher_indices
        if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
            found.append(
                f"method.synergy_eval_teacher_indices={numbers}: at least one teacher, none twice "
                "(null: all)"
            )
        return found
