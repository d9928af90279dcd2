"""Every metric that a run logs: its name, unit and direction, defined once.

Accuracies are shares in 0..1, times are seconds, memory is MiB, information is nats. The step of a
metric is the global epoch: one count over all stages and both kinds of step.
"""

from typing import Literal, NamedTuple

Better = Literal["higher", "lower"] | None


class Metric(NamedTuple):
    """What a metric means. `unit` is empty for a plain number; `better` is None where neither
    direction is an improvement."""

    name: str
    unit: str
    better: Better
    meaning: str


METRICS: dict[str, Metric] = {}


def _metric(name: str, meaning: str, *, unit: str = "", better: Better = None) -> str:
    METRICS[name] = Metric(name, unit, better, meaning)
    return name


# Training: one value an epoch.
LOSS_TOTAL = _metric("train/loss/total", "total of the weighted loss terms", better="lower")
LOSS_CE = _metric("train/loss/ce", "weighted cross-entropy with the labels", better="lower")
TRAIN_TOP1 = _metric(
    "train/top1", "accuracy on the training images of the epoch", unit="share", better="higher"
)
SKIPPED = _metric(
    "train/skipped",
    "share of the epoch's optimiser steps that float16 skipped, its gradient being infinite",
    unit="share",
    better="lower",
)
LR = _metric("train/lr", "learning rate of the epoch")
VAL_TOP1 = _metric(
    "val/top1",
    "validation accuracy; of a specialised teacher, on its own classes",
    unit="share",
    better="higher",
)
VAL_LOSS = _metric("val/loss", "cross-entropy on the validation split", unit="nats", better="lower")
VAL_TOP1_ALL = _metric(
    "val/top1_all_classes",
    "validation accuracy of a specialised teacher on all classes",
    unit="share",
    better="higher",
)
BEST_VAL_TOP1 = _metric(
    "val/best_top1",
    "validation accuracy of the selected epoch; logged once, at the end",
    unit="share",
    better="higher",
)
BEST_VAL_EPOCH = _metric(
    "val/best_epoch", "the selected epoch; logged once, at the end", unit="epochs"
)
VAL_CHANCE = _metric(
    "val/chance",
    "validation accuracy of guessing plus two standard errors; logged once, at the end",
    unit="share",
)
VAL_IMAGES = _metric(
    "val/images", "size of the validation split: accuracies move in steps of 1/n", unit="images"
)

# Test split: of the selected weights, read by the finalise step; each is logged once.
TEST_TOP1 = _metric("test/top1", "test accuracy", unit="share", better="higher")
TEST_TOP5 = _metric(
    "test/top5", "test accuracy, label among the five largest logits", unit="share", better="higher"
)
TEST_NLL = _metric("test/nll", "cross-entropy on the test split", unit="nats", better="lower")
TEST_ECE = _metric(
    "test/ece", "expected calibration error on the test split", unit="share", better="lower"
)
TEST_IMAGES = _metric(
    "test/images", "size of the test split: accuracies move in steps of 1/n", unit="images"
)
TEST_READS = _metric(
    "test/reads", "how many times the test split was read; `evaluate` can raise it"
)

# Fusion module: accuracies on the validation split.
SYNERGY_TOP1 = _metric(
    "synergy/top1",
    "accuracy of the synergy logits g(mu), in A-Step epochs that evaluate",
    unit="share",
    better="higher",
)
SYNERGY_EMA = _metric(
    "synergy/top1_ema", "exponential moving average of synergy/top1", unit="share", better="higher"
)
SYNERGY_RESTORED = _metric(
    "synergy/restored",
    "synergy accuracy of the restored A-Step state: what the gate reads; once an A-Step",
    unit="share",
    better="higher",
)
SYNERGY_CHANCE = _metric(
    "synergy/chance", "accuracy of guessing plus two standard errors", unit="share"
)
SYNERGY_GAIN = _metric(
    "synergy/gain",
    "synergy/restored less the accuracy of the best teacher at that moment",
    unit="share",
    better="higher",
)
SYNERGY_GAIN_AVERAGE = _metric(
    "synergy/gain_average",
    "synergy/restored less the accuracy of the teachers' average at that moment",
    unit="share",
    better="higher",
)
SYNERGY_GAIN_ORIGINAL = _metric(
    "synergy/gain_original",
    "synergy/restored less the accuracy of the best teacher as loaded",
    unit="share",
    better="higher",
)
SYNERGY_GAIN_AVERAGE_ORIGINAL = _metric(
    "synergy/gain_average_original",
    "synergy/restored less the accuracy of the teachers' average as loaded",
    unit="share",
    better="higher",
)
SYNERGY_GAIN_STUDENT = _metric(
    "synergy/gain_student",
    "synergy/restored less the accuracy of the student whose query the fusion reads",
    unit="share",
    better="higher",
)
SYNERGY_OTHER_QUERY = _metric(
    "synergy/top1_other_query",
    "accuracy of the restored fusion with the query of another image",
    unit="share",
)
SYNERGY_OTHER_TOKENS = _metric(
    "synergy/top1_other_tokens",
    "accuracy of the restored fusion with the teachers' tokens of another image",
    unit="share",
)
SYNERGY_QUERY_SHARE = _metric(
    "synergy/query_share",
    "share of synergy/restored that is lost with the query of another image",
    unit="share",
)
SYNERGY_TOKEN_SHARE = _metric(
    "synergy/token_share",
    "share of synergy/restored that is lost with the teachers' tokens of another image",
    unit="share",
)
SYNERGY_TRAIN_TOP1 = _metric(
    "synergy/train_top1",
    "accuracy of the restored fusion on labelled training images, at most 4096",
    unit="share",
)
SYNERGY_QUERY_LEAK = _metric(
    "synergy/query_leak",
    "accuracy that the fusion loses with the query of another image: by how much more on training "
    "than on validation images, less two standard errors",
    unit="share",
    better="lower",
)
GATE = _metric("synergy/gate", "gate of the B-Step: 1 open, 0 closed")
SYNERGY_SHARE = _metric(
    "synergy/share", "share of the samples whose target is the synergy logits", unit="share"
)
SYNERGY_TEMPERATURE = _metric(
    "synergy/temperature", "learned temperature of the synergy logits (synergy_temp_learnable)"
)

# What there is to teach: of the teachers as they were loaded, on validation images; once, with the
# first epoch.
ROOM_BEST_TEACHER = _metric(
    "room/best_teacher", "validation accuracy of the best teacher", unit="share", better="higher"
)
ROOM_AVERAGE = _metric(
    "room/average", "validation accuracy of the teachers' average", unit="share", better="higher"
)
ROOM_STACK = _metric(
    "room/stack",
    "validation accuracy of a regression on all teachers' features, fitted to at most 2000 "
    "labelled images",
    unit="share",
    better="higher",
)

# Distillation term.
KD_WEIGHT = _metric("kd/weight", "weight of the distillation term in the epoch (kd_eff)")
KD_SHARE = _metric("kd/share", "weighted distillation term over the total loss", unit="share")
KD_SCALE = _metric("kd/scale", "mean factor of the kd_max_ratio cap")
KD_KEPT = _metric("kd/kept", "share of the samples that kd_sample_gate distils", unit="share")
KD_WEIGHT_SPREAD = _metric(
    "kd/weight_spread", "standard deviation over mean of the per-sample weight"
)
KD_MODULE_GRAD = _metric(
    "kd/module_grad", "smallest gradient norm of the method's own modules in the B-Step"
)
DISAGREEMENT = _metric(
    "kd/teacher_disagreement",
    "share of the samples whose teachers differ in their top-1 class",
    unit="share",
)

# Bottleneck.
BETA = _metric("bottleneck/beta", "weight of the rate in the epoch")
RATE = _metric(
    "bottleneck/rate", "rate of the bottleneck on the training batches", unit="nats", better="lower"
)
DISTORTION = _metric(
    "bottleneck/distortion",
    "unweighted cross-entropy of g(z) on the training batches",
    unit="nats",
    better="lower",
)
VAL_RATE = _metric(
    "bottleneck/val_rate",
    "rate on the validation images, an upper bound of I(Z;X); z sampled 8 times",
    unit="nats",
    better="lower",
)
VAL_CE = _metric(
    "bottleneck/val_ce",
    "unsmoothed cross-entropy on the validation images: H(Y) less this bounds I(Z;Y) from below",
    unit="nats",
    better="lower",
)
LABEL_ENTROPY = _metric("bottleneck/label_entropy", "entropy of the validation labels", unit="nats")
SIGMA_MEAN = _metric("bottleneck/sigma_mean", "mean standard deviation of the latent")
SIGMA_MIN = _metric("bottleneck/sigma_min", "smallest standard deviation of the latent in a batch")
SIGMA_MAX = _metric("bottleneck/sigma_max", "largest standard deviation of the latent in a batch")
SIGMA_FLOOR = _metric(
    "bottleneck/sigma_floor", "smallest standard deviation that min_std and logvar_clip allow"
)
ADAPTER_GRAD = _metric(
    "bottleneck/adapter_grad", "smallest gradient norm of an adapter, at the last step"
)
FUSION_GRAD = _metric(
    "bottleneck/fusion_grad",
    "smallest gradient norm of a part of the fusion module or its head, at the last step",
)

# Stages.
STAGE_INDEX = _metric("stage/index", "stage, from 1")
STAGE_STEP = _metric("stage/step", "0 A-Step, 1 B-Step")
OBJECTIVE = _metric(
    "stage/J",
    "objective of the alternation on the validation images, at step boundaries",
    unit="nats",
    better="lower",
)
STUDENT_TRAINABLE = _metric(
    "stage/student_trainable", "share of the student's parameters that get gradients", unit="share"
)
STUDENT_TRAINABLE_REQUESTED = _metric(
    "stage/student_trainable_requested",
    "share of the student's parameters that the freezing level requests",
    unit="share",
)

# Cost.
IMAGES_PER_SECOND = _metric(
    "cost/images_per_second",
    "training images a second in the optimiser steps of the epoch",
    unit="images/s",
    better="higher",
)
EPOCH_SECONDS = _metric(
    "cost/epoch_seconds", "a whole epoch: preparation, steps, evaluation", unit="s", better="lower"
)
PEAK_MEMORY = _metric(
    "cost/peak_memory_mb",
    "peak device memory on a GPU, resident set on a CPU",
    unit="MiB",
    better="lower",
)
RUN_SECONDS = _metric(
    "cost/run_seconds",
    "all epochs of all stages and the view banks; once, at the end",
    unit="s",
    better="lower",
)
A_STEP_SECONDS = _metric(
    "cost/a_step_seconds", "all A-Step epochs; once, at the end", unit="s", better="lower"
)
GRAPH_STEPS = _metric(
    "cost/graph_steps",
    "share of the epoch's optimiser steps that were one launch of a CUDA graph (`runtime.graph`)",
    unit="share",
)
B_STEP_SECONDS = _metric(
    "cost/b_step_seconds", "all B-Step epochs; once, at the end", unit="s", better="lower"
)
BANK_SECONDS = _metric(
    "cost/bank_seconds",
    "computing the view banks, when they were made; once, at the end",
    unit="s",
    better="lower",
)
PARAMETERS = _metric("cost/parameters", "parameters of the network; once, at the end")
STEP_SECONDS = _metric(
    "cost/step_seconds", "mean time of an optimiser step of the epoch", unit="s", better="lower"
)

# Families of metrics: a prefix with a name behind it.
LOSS = "train/loss/"  # + every weighted term of the method
TEST = "test/"
STATE = (
    "state/"  # + student, method, teachers or teacher: a number below 2^52 for the exact weights
)
OBJECTIVE_PARTS = "stage/J_"  # + ce_student, ce_synergy, rate, kl_synergy_student, …
HEALTH = "health/"  # + a warning: 1 where it holds, 0 where not, absent where it does not apply
# An evaluation is a child run of the run that it evaluates: eval/ + top1 top5 nll ece images
# parameters macs images_per_second, and teacher<k>/agreement, teacher<k>/kl.
EVAL = "eval/"


def teacher(index: int, what: str) -> str:
    """`teacher0/top1`: validation accuracy of a teacher (`_before` / `_after` an A-Step);
    `teacher0/trainable`, `teacher0/trainable_requested`: shares of its parameters."""
    return f"teacher{index}/{what}"
