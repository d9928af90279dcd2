"""Every name that is written to the tracking store and read back from it.

Accuracies are fractions in 0..1, times are seconds, memory is MiB, information is nats.
The step of a metric is the global epoch: one count over all stages and both kinds of step.
"""

DEFAULT_EXPERIMENT = "asib"

# Tags of a stage run. Parent: the launch run, by MLflow's own tag.
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # a run's description, Markdown
STAGE = "stage"  # finetune | distill | analyze | evaluate | launch
RUNG = "rung"  # CE KD L0 … for ASIB's ladder, the method's name for a baseline
BENCH = "bench"
METHOD = "method"
TEACHERS = "teachers"
STUDENT = "student"
SEED = "seed"
RUN_KEY = "run_key"
RECIPE = "recipe"  # key of everything but the seed: runs of one recipe are repetitions
MATCHED_TO = "matched_to"  # rung whose time a CE run was given
SETTING = "setting"  # key of data, student and budget: runs of one setting may be compared
OVERLAP = "overlap"  # percent of the classes that both teachers were trained on
STUDY = "study"
TRIAL = "trial"
GIT = "git"  # revision, with "-dirty" where the tree was changed
REUSED = "reused"  # "true" on a run that was replayed from the local store
ERROR = "error"  # last line of the traceback of a FAILED run
HEALTH = "health"  # the warnings that a run gave, with commas; no tag where there was none
FALLBACK = "precision_fallback"  # why mixed precision was switched off in the middle of a run

# Training, one value an epoch. `train/loss/<term>` holds every weighted term of the method.
LOSS = "train/loss/"
LOSS_TOTAL = "train/loss/total"
TRAIN_TOP1 = "train/top1"
LR = "train/lr"
VAL_TOP1 = "val/top1"
VAL_LOSS = "val/loss"
VAL_TOP1_ALL = (
    "val/top1_all_classes"  # of a specialised teacher; its val/top1 is on its own classes
)
BEST_VAL_TOP1 = "val/best_top1"  # once, at the end: the epoch that was selected
BEST_VAL_EPOCH = "val/best_epoch"
VAL_IMAGES = "val/images"  # how many select: with n of them an accuracy moves in steps of 1/n

# Of the selected weights, by the finalise step; each is logged once. The count of readings goes
# up when `evaluate` reads the test split again.
TEST = "test/"
TEST_TOP1 = "test/top1"
TEST_TOP5 = "test/top5"
TEST_NLL = "test/nll"
TEST_ECE = "test/ece"
TEST_READS = "test/reads"

SYNERGY_TOP1 = "synergy/top1"  # validation accuracy of g(mu), in A-Step epochs that evaluate
SYNERGY_EMA = "synergy/top1_ema"
# Once an A-Step, of the state that was kept and restored: what the gate read, and the B-Step used.
SYNERGY_RESTORED = "synergy/restored"
SYNERGY_CHANCE = "synergy/chance"  # what guessing reaches, with two standard errors
# That less the validation accuracy of the best teacher, and of the teachers' average (the mean of
# their logits by teacher_weights): as they are at that moment, and as they were loaded.
SYNERGY_GAIN = "synergy/gain"
SYNERGY_GAIN_AVERAGE = "synergy/gain_average"
SYNERGY_GAIN_ORIGINAL = "synergy/gain_original"
SYNERGY_GAIN_AVERAGE_ORIGINAL = "synergy/gain_average_original"
GATE = "synergy/gate"  # 1 open, 0 closed
SYNERGY_SHARE = "synergy/share"  # share of the samples whose target came from the fusion

KD_WEIGHT = "kd/weight"  # kd_eff of the epoch
KD_SHARE = "kd/share"  # weighted KD term / total loss
KD_SCALE = "kd/scale"  # mean factor of the kd_max_ratio cap
KD_WEIGHT_SPREAD = "kd/weight_spread"  # of the per-sample weight: standard deviation / mean
KD_MODULE_GRAD = "kd/module_grad"  # weakest gradient norm of a method's own modules in the B-Step
DISAGREEMENT = "kd/teacher_disagreement"  # share of samples whose teachers' top-1 differ

BETA = "bottleneck/beta"
RATE = "bottleneck/rate"
DISTORTION = "bottleneck/distortion"  # unweighted cross-entropy of g(z)
# Of the validation images, z drawn 8 times each: the information plane.
VAL_RATE = "bottleneck/val_rate"  # an upper bound of I(Z;X)
VAL_CE = "bottleneck/val_ce"  # unsmoothed, unweighted; LABEL_ENTROPY - VAL_CE <= I(Z;Y)
LABEL_ENTROPY = "bottleneck/label_entropy"
SIGMA_MEAN = "bottleneck/sigma_mean"
SIGMA_MIN = "bottleneck/sigma_min"
SIGMA_MAX = "bottleneck/sigma_max"
SIGMA_FLOOR = "bottleneck/sigma_floor"  # the least that min_std and logvar_clip allow
ADAPTER_GRAD = "bottleneck/adapter_grad"  # weakest gradient norm of an adapter, of the last step
FUSION_GRAD = "bottleneck/fusion_grad"  # … of a part of the fusion module or of its head

# state/student, state/method, state/teachers (where they learn), state/teacher of a fine-tuning: a
# whole number below 2^52 for the exact bits of the weights after the epoch.
STATE = "state/"

STAGE_INDEX = "stage/index"  # 1 … num_stages
STAGE_STEP = "stage/step"  # 0 A-Step, 1 B-Step
OBJECTIVE = "stage/J"  # the alternation's objective on validation, at step boundaries
OBJECTIVE_PARTS = "stage/J_"  # + ce_student, ce_synergy, rate, kl_synergy_student, …


def teacher(index: int, what: str) -> str:
    """`teacher0/top1`: validation accuracy of a teacher (`_before` / `_after` an A-Step);
    `teacher0/trainable`, `teacher0/trainable_requested`: shares of its parameters."""
    return f"teacher{index}/{what}"


IMAGES_PER_SECOND = "cost/images_per_second"  # in training steps of the epoch
EPOCH_SECONDS = "cost/epoch_seconds"  # a whole epoch: preparation, steps, evaluation
PEAK_MEMORY = "cost/peak_memory_mb"  # device memory on a GPU, resident set on a CPU
# Once, at the end:
RUN_SECONDS = "cost/run_seconds"  # all epochs of all stages, with A-Steps, and the banks
A_STEP_SECONDS = "cost/a_step_seconds"
B_STEP_SECONDS = "cost/b_step_seconds"
BANK_SECONDS = "cost/bank_seconds"  # what the view banks cost when they were made
PARAMETERS = "cost/parameters"
STEP_SECONDS = "cost/step_seconds"  # mean of an epoch's optimiser steps

# Partial freezing: shares of the parameters, as the level asks for and as gradients show.
STUDENT_TRAINABLE = "stage/student_trainable"
STUDENT_TRAINABLE_REQUESTED = "stage/student_trainable_requested"

# An evaluation is a child run of what it evaluated, with a stage of its own: no table takes it
# for a training run. Metrics: `eval/` + top1 top5 nll ece images parameters macs
# images_per_second, and teacher<k>/agreement, teacher<k>/kl.
EVAL = "eval/"
SPLIT = "split"  # train | val | test
EVALUATED = "evaluated"  # the run's key, or the first digits of a file's sha256

# `health/<warning>`: 1 where it holds in an epoch, 0 where it does not, nothing where it does not
# apply. Each says what it means and what to try.
HEALTH_METRICS = "health/"
WARNINGS = {
    "synergy_at_chance": "The fusion that teaches the student is no better than guessing. Try a "
    "larger method.a_lr, more budget.adapt_epochs, or a smaller method.ib_beta.",
    "gate_never_open": "The gate was closed in every stage: the fusion never taught the student, "
    "the teachers' average did. Look at synergy/restored; try more budget.adapt_epochs or a lower "
    "bench.enable_kd_after_syn_acc.",
    "gate_always_open": "The gate was open in every stage, so it decided nothing. That is well "
    "where synergy/gain is above 0, or below it by no more than a few of the val/images; else set "
    "bench.enable_kd_after_syn_acc to the validation accuracy of the best teacher.",
    "sigma_at_one": "The latent's standard deviations are near 1, those of its prior: its rate "
    "says whether its mean carries anything. Try a smaller method.ib_beta, and leave "
    "method.a_step_sample on.",
    "sigma_at_floor": "The standard deviations of the latent are at their least value: nothing is "
    "sampled. Try a larger method.ib_beta, or lower method.min_std and raise method.logvar_clip.",
    "kd_negligible": "What the student learns from teachers is under 1 % of the labels' term. Try "
    "a larger weight (method.kd_alpha of the rungs, method.weight of other methods), another "
    "method.tau, or better teachers.",
    "weight_constant": "The weight of the distillation term is the same for all samples, so it "
    "tells none apart. Try other values of it, or switch it off (method.kd_uncertainty_weight=0).",
    "adapter_without_gradient": "An adapter of the fusion does not learn: features pass through a "
    "random projection. Set method.adapt to adapters or backbone; a method.loss_clamp=hard that is "
    "always reached stops gradients too.",
    "module_without_gradient": "A part of the fusion module, or a module of the method's own, gets "
    "no gradient. Leave method.a_step_sample on, and look for a weight of 0 among the terms.",
    "freezing_not_as_asked": "Another share of the parameters learns than was asked for: compare "
    "stage/student_trainable and teacher<k>/trainable with …_requested, and look at the blocks of "
    "the network (method.student_levels, method.teacher_levels).",
    "non_finite": "A value was not a finite number. Try a smaller learning rate (optim.lr, "
    "method.a_lr) or numerics=float32.",
}
