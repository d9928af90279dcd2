"""Every name that is written to the tracking store and read back from it.

Accuracies are fractions in 0..1, times are seconds, memory is MiB, information is nats.
The step of a metric is the global epoch: one count over all stages and both kinds of step.
"""

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
BEST_VAL_TOP1 = "val/best_top1"  # once, at the end: the epoch that was selected
BEST_VAL_EPOCH = "val/best_epoch"

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
SYNERGY_GAIN = "synergy/gain"  # that - the best teacher's validation accuracy at that moment
GATE = "synergy/gate"  # 1 open, 0 closed
SYNERGY_SHARE = "synergy/share"  # share of the samples whose target came from the fusion

KD_WEIGHT = "kd/weight"  # kd_eff of the epoch
KD_SHARE = "kd/share"  # weighted KD term / total loss
KD_SCALE = "kd/scale"  # mean factor of the kd_max_ratio cap
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
