"""Room: how much the teachers know before anything is distilled, alone, averaged and stacked.

Shapes: N labelled images, V views, M validation images, K teachers, C classes, D features.
"""

from __future__ import annotations

import torch

from trainers import metrics, stacking
from trainers.data import TrainingData
from trainers.distillation.state import Teacher
from trainers.distillation.synergy_gain import unfused

IMAGES, STEPS = 2000, 50  # of the regression: enough for a figure that is read in whole points
LARGEST = 1_000_000  # weights of the regression, above which it would take minutes


@torch.no_grad()
def room(
    data: TrainingData,
    teachers: list[Teacher],
    *,
    views: int,
    classes: int,
    weights: list[float] | None,
) -> dict[str, float]:
    """Validation accuracy of the best teacher, of the average by `weights`, and of a stack.

    The stack is a multinomial regression on the teachers' pooled features of one view of the
    labelled images, of at most `IMAGES` of them, with its penalty chosen on validation. It is left
    out where there are no banks (`views` is 0), and where it would have more than `LARGEST`
    weights. Empty without teachers or validation images.
    """
    labels_M = data.val.labels.cpu()
    if not teachers or not len(labels_M):
        return {}
    val = [teacher.bank.val.cpu() for teacher in teachers]
    accuracies, average = unfused(val, weights, labels_M)
    found = {metrics.ROOM_BEST_TEACHER: max(accuracies), metrics.ROOM_AVERAGE: average}
    if not views or classes * sum(teacher.bank.width for teacher in teachers) > LARGEST:
        return found
    labels_N = data.train.labels.cpu()
    image_N = torch.arange(0, len(labels_N), -(-len(labels_N) // IMAGES))
    row_N = (image_N * views).to(data.train.labels.device)
    stack = stacking.fit(
        stacking.stacked([teacher.bank.train.pooled[row_N].cpu() for teacher in teachers]),
        labels_N[image_N],
        stacking.stacked([one.pooled for one in val]),
        labels_M,
        classes,
        steps=STEPS,
    )
    return found | {metrics.ROOM_STACK: stack.val_top1}
