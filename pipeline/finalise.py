"""The only place that reads the test split: once, when a stage is finished, and counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline import names
from pipeline.store import RunFolder
from trainers import losses
from trainers.data import DataConfig, Images, Splits
from trainers.loop import top1
from trainers.views import Normaliser, Numerics, image_rows

ECE_BINS = 15


def read_test(
    folder: RunFolder, model: nn.Module, data: Splits, config: DataConfig, numerics: Numerics
) -> dict[str, float]:
    """Test metrics of the selected weights. The reading is counted durably before it is done."""
    reads = folder.count_test_read()
    device = data.train.device
    test: Images = data.test.to(device)
    logits = image_rows(model, test, Normaliser(config, numerics, device), numerics).logits
    return classification_metrics(logits, test.labels) | {names.TEST_READS: float(reads)}


def classification_metrics(logits_MC: Tensor, labels_M: Tensor) -> dict[str, float]:
    """top-1, top-5 (where there are more classes), NLL in nats, expected calibration error."""
    best = logits_MC.topk(min(5, logits_MC.shape[1]), dim=1).indices
    found = {
        names.TEST_TOP1: top1(logits_MC, labels_M),
        names.TEST_NLL: float(losses.cross_entropy(logits_MC, labels_M).mean()),
        names.TEST_ECE: calibration_error(logits_MC, labels_M),
    }
    if logits_MC.shape[1] > 5:
        found[names.TEST_TOP5] = float((best == labels_M[:, None]).any(1).float().mean())
    return found


def calibration_error(logits_MC: Tensor, labels_M: Tensor) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al. 2017,
    arXiv 1706.04599)."""
    confidence, guess = torch.softmax(logits_MC.double(), 1).max(1)
    hit = (guess == labels_M).double()
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=torch.double, device=logits_MC.device)
    bin_M = torch.bucketize(confidence, edges[1:-1])
    gap = torch.zeros(ECE_BINS, dtype=torch.double, device=logits_MC.device)
    gap.index_add_(0, bin_M, hit - confidence)
    return float(gap.abs().sum() / len(labels_M))
