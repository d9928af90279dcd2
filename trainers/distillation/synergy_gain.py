"""What a fusion knows that its inputs do not: the synergy gain over the student that asks, the
teachers and their average, and how much of its accuracy comes from the query and from the tokens.

Shapes: M validation images, K teachers, C classes.
"""

from __future__ import annotations

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


def query_and_tokens(
    method: AlternatingMethod,
    student: ViewOutputs,
    teachers: list[ViewOutputs],
    labels_M: Tensor,
    restored: float,
    stream: tuple[int, int],
) -> dict[str, float]:
    """Gain of the fusion over the student that asks, and the shares of its accuracy (`restored`)
    that it loses with the query, and with the teachers' tokens, of another image.

    A fusion that repeats its student loses all but chance without the query and nothing without
    the tokens. A fusion without a query has no share of it. `stream` = (seed, stage): of the other
    images.
    """
    which = method.config.synergy_eval_teacher_indices
    other_M = other_images(len(labels_M), 1, generator(stream[0], "shares", stream[1]))
    other_M = other_M.to(labels_M.device)
    others = [one.at(other_M) for one in teachers]
    told = synergy_rows(method, student, others, which=which)
    without_tokens = top1(told.logits, labels_M)
    found = {
        metrics.SYNERGY_GAIN_STUDENT: restored - top1(student.logits, labels_M),
        metrics.SYNERGY_OTHER_TOKENS: without_tokens,
        metrics.SYNERGY_TOKEN_SHARE: _lost(restored, without_tokens),
    }
    if not method.reads_query:
        return found
    queried = synergy_rows(method, student.at(other_M), teachers, which=which)
    without_query = top1(queried.logits, labels_M)
    return found | {
        metrics.SYNERGY_OTHER_QUERY: without_query,
        metrics.SYNERGY_QUERY_SHARE: _lost(restored, without_query),
    }


def _lost(accuracy: float, left: float) -> float:
    return (accuracy - left) / accuracy if accuracy > 0 else 0.0
