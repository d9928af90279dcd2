"""Names of the original ASIB framework, and what to give here instead.

`docs/coming-from-asib.md` is made from these tables (`pipeline.config.reference`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.config.groups import options_of


class OldKey(NamedTuple):
    """A key of the original framework; `here`: its option, empty where there is none."""

    name: str
    here: str
    note: str = ""


_ADAPTERS = "adapters are part of the method: teachers and query always have one"
_ON_DEVICE = "images are on the device: there are no loader workers"
_NO_CKPT = "teachers are trained and stored by this project; your own file: teacher.0.ckpt=PATH"

OLD_KEYS = [
    # Target and weights of the B-Step
    OldKey("ce_alpha", "method.ce_alpha", "not renormalised with kd_alpha to a sum of 1"),
    OldKey("kd_alpha", "method.kd_alpha", "of the literature's methods: method.weight"),
    OldKey("kd_target", "method.kd_target", "auto_min is auto; an unknown name is an error"),
    OldKey("kd_teacher_index", "method.teacher_index"),
    OldKey("teacher_weights", "method.teacher_weights", "normalised to a sum of 1"),
    OldKey("tau", "method.tau"),
    OldKey("tau_schedule", "method.tau", "the temperature is constant"),
    OldKey("tau_syn", "method.tau_syn"),
    OldKey("synergy_logit_scale", "method.synergy_logit_scale", "of the target, not the routing"),
    OldKey("kd_ens_alpha", "method.kd_ens_alpha", "falls to 0 over the KD warm-up"),
    OldKey("kd_warmup_epochs", "method.kd_warmup_epochs", "over all stages, or a fraction"),
    OldKey("kd_cooldown_epochs", "method.kd_cooldown_epochs", "over all stages, or a fraction"),
    OldKey("kd_max_ratio", "method.kd_max_ratio", "after the KD warm-up"),
    OldKey("ce_label_smoothing", "method.label_smoothing"),
    OldKey("kd_target_mode", "method.target_view"),
    OldKey("kd_target_view", "method.target_view"),
    OldKey("synergy_view", "method.target_view", "the fusion always reads clean images"),
    OldKey("kd_two_view_start_epoch", "mix.start", "two_view holds wherever images are mixed"),
    OldKey("kd_two_view_stop_epoch", "mix.stop", "two_view holds wherever images are mixed"),
    OldKey("kd_uncertainty_weight", "method.kd_uncertainty_weight", "the entropy is that at τ = 1"),
    OldKey("kd_uncertainty_min", "method.kd_uncertainty_min"),
    OldKey("kd_sample_gate", "method.kd_sample_gate"),
    OldKey("kd_sample_thr", "method.kd_sample_thr", "part of the run key"),
    OldKey("kd_sample_min_ratio", "method.kd_sample_min_ratio"),
    OldKey("kd_sample_max_ratio", "method.kd_sample_max_ratio"),
    OldKey("kd_sample_reweight", "method.kd_sample_reweight"),
    OldKey("kd_correct_min", "method.kd_correct_min", "with method.kd_label_guard=true"),
    OldKey("teacher2_weight_decay_start_epoch", "method.teacher2_weight_decay_start"),
    OldKey("teacher2_weight_decay_len", "method.teacher2_weight_decay_len"),
    OldKey("use_disagree_weight", "method.disagree_lambda_high", "a weight other than 1 is on"),
    OldKey("disagree_mode", "method.disagree_mode"),
    OldKey("disagree_lambda_high", "method.disagree_lambda_high"),
    OldKey("disagree_lambda_low", "method.disagree_lambda_low"),
    OldKey("feat_kd_alpha", "method.feat_kd_alpha"),
    OldKey("feat_kd_clip", "method.feat_kd_clip"),
    OldKey("feat_kd_huber_beta", "method.feat_kd_huber_beta"),
    OldKey("feat_kd_key", "", "features are those that the query adapter gives (distill_feat)"),
    OldKey("hybrid_beta", "method.use_dkd_with_synergy"),
    # Fusion
    OldKey("use_ib", "method.bottleneck", "the rungs set it: cfg=L0 is without, cfg=L1 with it"),
    OldKey("ib_beta", "method.ib_beta", "the rate is per image, in nats, and has a gradient"),
    OldKey("ib_beta_warmup_epochs", "method.ib_beta_warmup_epochs", "over all stages"),
    OldKey("ib_mbm_out_dim", "method.latent_dim", "null: that of the tokens"),
    OldKey("ib_mbm_query_dim", "method.token_dim", "one width for the query and the teachers"),
    OldKey("distill_out_dim", "method.token_dim", "null: 512, or 256 for narrow students"),
    OldKey("auto_align_ib_out_dim", "method.latent_dim", "null is aligned with the tokens"),
    OldKey("ib_mbm_n_head", "method.heads"),
    OldKey("ib_mbm_logvar_clip", "method.logvar_clip"),
    OldKey("ib_mbm_min_std", "method.min_std", "the rate is that of the floored σ"),
    OldKey("ib_mbm_lr_factor", "method.ib_mbm_lr_factor"),
    OldKey("ib_mbm_feature_norm", "", "features are layer-normalised after their adapters"),
    OldKey("ib_mbm_reg_lambda", "method.a_weight_decay"),
    OldKey("min_cw", "method.min_cw"),
    OldKey("max_cw", "method.max_cw"),
    OldKey("use_distillation_adapter", "", _ADAPTERS),
    OldKey("synergy_head_dropout", "method.dropout"),
    OldKey("synergy_temp_learnable", "method.synergy_temp_learnable"),
    OldKey("synergy_temp_init", "method.synergy_temp_init", "a logarithm"),
    OldKey("synergy_temp_reg", "method.synergy_temp_reg"),
    OldKey(
        "synergy_eval_teacher_indices",
        "method.synergy_eval_teacher_indices",
        "null: all; there the first two",
    ),
    OldKey("use_mu_for_kd", "method.use_mu_for_kd"),
    # A-Step
    OldKey(
        "teacher_adapt_epochs",
        "budget.adapt_epochs",
        "of all stages together: 8 in each of 4 stages is 32, the same for every rung",
    ),
    OldKey("ib_epochs_per_stage", "budget.adapt_epochs", "of all stages together"),
    OldKey(
        "synergy_only_epochs",
        "method.synergy_only_epochs",
        "less than the A-Step: 8 of 8 would never train the bottleneck",
    ),
    OldKey("synergy_ce_alpha", "method.w_ce", "1 in the epochs on the labels alone"),
    OldKey("teacher_adapt_alpha_kd", "method.w_kd"),
    OldKey("teacher_adapt_kd_warmup", "method.cccp_ramp_epochs"),
    OldKey("enable_kd_after_syn_acc", "bench.enable_kd_after_syn_acc", "a fraction; on validation"),
    OldKey("teacher_eval_every", "method.teacher_eval_every"),
    OldKey("synergy_ema_alpha", "method.synergy_ema_alpha", "gates with method.gate_on=ema only"),
    OldKey("label_smoothing", "method.a_label_smoothing", "the B-Step's: method.label_smoothing"),
    OldKey("a_step_lr", "method.a_lr"),
    OldKey("a_step_weight_decay", "method.a_weight_decay"),
    OldKey("teacher_lr", "method.a_lr"),
    OldKey("teacher_weight_decay", "method.a_weight_decay"),
    OldKey("grad_clip_norm", "method.a_clip", "of the A-Step; the B-Step has none"),
    OldKey("use_loss_clamp", "method.loss_clamp", "none turns it off; of the A-Step alone"),
    OldKey("loss_clamp_mode", "method.loss_clamp"),
    OldKey("loss_clamp_max", "method.loss_clamp_max"),
    OldKey("loss_clamp_warmup_epochs", "method.loss_clamp_warmup_epochs"),
    OldKey("disable_loss_clamp_in_a", "method.loss_clamp", "none where it was true"),
    OldKey("use_cccp", "method.num_stages", "CCCP is the alternation: more than one stage"),
    OldKey("use_cccp_in_a", "method.cccp_alpha", "above 0"),
    OldKey("cccp_alpha", "method.cccp_alpha"),
    OldKey("use_teacher_finetuning", "method.adapt", "backbone"),
    OldKey("train_distill_adapter_only", "method.adapt", "adapters"),
    # Stages and freezing
    OldKey("num_stages", "method.num_stages", "the rungs set it"),
    OldKey(
        "student_epochs_per_stage",
        "budget.student_epochs_per_stage",
        "next to budget.student_epochs, their sum; null: shared equally",
    ),
    OldKey("student_epochs_schedule", "budget.student_epochs", "of all stages, shared equally"),
    OldKey("use_partial_freeze", "cfg", "L4 freezes; it had no effect in the original"),
    OldKey("student_freeze_level", "method.student_levels", "-1 all, 0 head, n last n blocks"),
    OldKey("student_freeze_schedule", "method.student_levels", "one level for every stage"),
    OldKey("student_freeze_level_schedule", "method.student_levels", "one level for every stage"),
    OldKey("teacher1_freeze_level", "method.teacher_levels", "of all teachers"),
    OldKey("teacher2_freeze_level", "method.teacher_levels", "of all teachers"),
    OldKey("student_freeze_bn", "method.freeze_bn", "where blocks are frozen"),
    OldKey("teacher1_freeze_bn", "", "the teachers' BatchNorm is always in evaluation mode"),
    OldKey("teacher2_freeze_bn", "", "the teachers' BatchNorm is always in evaluation mode"),
    # Optimiser, data, machine
    OldKey("optimizer", "optim.name"),
    OldKey("student_lr", "optim.lr"),
    OldKey("b_step_lr", "optim.lr"),
    OldKey("student_weight_decay", "optim.weight_decay"),
    OldKey("b_step_weight_decay", "optim.weight_decay"),
    OldKey("b_step_momentum", "optim.momentum"),
    OldKey("b_step_nesterov", "optim.nesterov"),
    OldKey("lr_warmup_epochs", "optim.warmup_epochs", "one cosine over all stages"),
    OldKey("min_lr", "optim.min_lr"),
    OldKey("batch_size", "optim.batch"),
    OldKey("mixup_alpha", "mix.mixup_alpha", "the same for every rung and method"),
    OldKey("cutmix_alpha_distill", "mix.cutmix_alpha", "the true area is the share of the labels"),
    OldKey("num_workers", "", _ON_DEVICE),
    OldKey("data_aug", "data.flip", "and data.crop_pad"),
    OldKey("small_input", "data.image_size", "networks adapt to it"),
    OldKey("use_amp", "numerics.precision", "part of the run key"),
    OldKey("amp_dtype", "numerics.precision", "bfloat16, float16 or float32"),
    OldKey("use_channels_last", "numerics.memory_format", "channels_last or contiguous"),
    OldKey("channels_last", "numerics.memory_format", "channels_last or contiguous"),
    OldKey("use_ema", "method.ema_weight", "above 0: the average of the student teaches too"),
    OldKey("ema_decay", "method.ema_decay"),
    OldKey("teacher1_ckpt", "teacher.0.ckpt", _NO_CKPT),
    OldKey("teacher2_ckpt", "teacher.1.ckpt", _NO_CKPT),
    OldKey("compute_teacher_eval", "", "each teacher's validation accuracy is always measured"),
    OldKey("results_dir", "runtime.store"),
    OldKey("checkpoint_dir", "runtime.store"),
    OldKey("exp_id", "runtime.experiment"),
    OldKey("device", "runtime.device"),
    OldKey("crd_nce_k", "method.negatives"),
    OldKey("crd_nce_t", "method.temperature"),
    OldKey("crd_momentum", "method.momentum"),
    OldKey("at_beta", "method.weight"),
]

# Values of groups: what to choose here for a name of the original.
OLD_METHODS = {"vanilla_kd": "kd", "vanilla": "kd", "ce_only": "ce", "ce_same_recipe": "ce"}
OLD_METHODS |= {"kd_single_teacher": "kd"}
OLD_EXPERIMENTS = {
    "L0_baseline": "ablation_baseline",
    "L1_ib": "ablation_ib",
    "L2_cccp": "ablation_cccp",
    "L3_ib_cccp_tadapt": "ablation_tadapt",
    "L4_full": "ablation_full",
}
_ENDINGS = ("_cifar32", "_cifar100", "_imagenet32", "_scratch", "_pretrain")
_GROUPS = {  # of a choice such as model/teacher@experiment.teacher1=NAME
    r".*teacher@.*?(\d*)": "teacher@teacher.{}",
    r".*student@.*": "student",
    r".*method@.*": "method",
    r".*experiment/method": "method",
    r".*dataset@.*": "data",
}
_BY_NAME = {key.name: key for key in OLD_KEYS}


def instead(key: str, value: str) -> str | None:
    """A sentence for a key of the original framework; None for any other key."""
    for pattern, group in _GROUPS.items():
        if match := re.fullmatch(pattern, key):
            number = int(match[1] or 1) - 1 if match.groups() else 0
            return f"{key}={value}: here {group.format(number)}={new_name(value)}"
    old = _BY_NAME.get(key.rpartition(".")[2])
    if old is None:
        return None
    note = f" ({old.note})" if old.note else ""
    return f"{key} is {old.here} here{note}" if old.here else f"{key}: not needed here: {old.note}"


def new_name(value: str) -> str:
    """The name here of a method, network, experiment of the original framework, or `value`."""
    for ending in _ENDINGS:
        value = value.removesuffix(ending)
    return OLD_METHODS.get(value) or OLD_EXPERIMENTS.get(value) or value


def renamed(group: str, value: str) -> str | None:
    """The choice of a group that was called `value` in the original framework, if it was."""
    new = new_name(value)
    return new if new != value and new in options_of(group) else None
