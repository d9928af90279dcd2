"""What a fusion knows that its inputs do not: the synergy gain over the student that asks, the
teachers and their average, how much of its accuracy comes from the query and from the tokens, and
how much the query tells of training images alone.

Shapes: N training images, M validation images, K teachers, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainers import metrics
from trainers.distillation.placebos import other_images
from trainers.distillation.stage_cache import synergy_rows
from trainers.loop import top1
from trainers.methods.alternating import AlternatingMethod
from trainers.rng import generator
from trainers.targets import average_logits
from trainers.view_bank import ViewOutputs


def unfused(
    teachers: list[ViewOutputs], weights: list[float] | None, labels_M: Tensor
) -> tuple[list[float], float]:
    """Validation accuracy of each teacher, and of the mean of their logits by `weights`."""
    logits_KMC = torch.stack([rows.logits.float() for rows in teachers])
    average = top1(average_logits(logits_KMC, weights), labels_M)
    return [top1(logits_MC, labels_M) for logits_MC in logits_KMC], average


class Read(NamedTuple):
    """What a fusion reads of images, and their labels [M]; of several fusions the share of each in
    the logits [F, M] (None: the same)."""

    student: ViewOutputs
    teachers: list[ViewOutputs]
    labels: Tensor
    share: Tensor | None = None


def query_and_tokens(
    method: AlternatingMethod, val: Read, train: Read, restored: float, stream: tuple[int, int]
) -> dict[str, float]:
    """Gain of the fusion over the student that asks, the shares of its validation accuracy
    (`restored`) that it loses with the query, and with the teachers' tokens, of another image, and
    its accuracy on training images.

    A fusion that repeats its student loses all but chance without the query and nothing without
    the tokens. A fusion without a query has no share of it. `stream` = (seed, stage): of the other
    images.
    """
    other_M = _others(val, *stream)
    tokens = val._replace(teachers=[one.at(other_M) for one in val.teachers])
    without_tokens = float(_right(method, tokens).mean())
    train_N = _right(method, train)
    found = {
        metrics.SYNERGY_GAIN_STUDENT: restored - top1(val.student.logits, val.labels),
        metrics.SYNERGY_OTHER_TOKENS: without_tokens,
        metrics.SYNERGY_TOKEN_SHARE: _lost(restored, without_tokens),
        metrics.SYNERGY_TRAIN_TOP1: float(train_N.mean()),
    }
    if not method.reads_query:
        return found
    queried_M = _right(method, val._replace(student=val.student.at(other_M)))
    other_N = _others(train, *stream)
    queried_N = _right(method, train._replace(student=train.student.at(other_N)))
    without_query = float(queried_M.mean())
    return found | {
        metrics.SYNERGY_OTHER_QUERY: without_query,
        metrics.SYNERGY_QUERY_SHARE: _lost(restored, without_query),
        metrics.SYNERGY_QUERY_LEAK: excess(train_N - queried_N, _right(method, val) - queried_M),
    }


def excess(train_N: Tensor, val_M: Tensor) -> float:
    """By how much a mean over training images is above that over validation images, less two
    standard errors of the difference."""
    noise = train_N.var(correction=0) / len(train_N) + val_M.var(correction=0) / len(val_M)
    return float(train_N.mean() - val_M.mean() - 2 * noise.sqrt())


def _others(read: Read, seed: int, stage: int) -> Tensor:
    labels_M = read.labels
    return other_images(len(labels_M), 1, generator(seed, "shares", stage)).to(labels_M.device)


def _right(method: AlternatingMethod, read: Read) -> Tensor:
    """1 where the fusion finds the label, 0 elsewhere, [M] float32."""
    which = method.config.synergy_eval_teacher_indices
    fused = synergy_rows(method, read.student, read.teachers, which=which, share_FR=read.share)
    return (fused.logits.argmax(1) == read.labels).float()


def _lost(accuracy: float, left: float) -> float:
    return (accuracy - left) / accuracy if accuracy > 0 else 0.0
