"""The only place that reads the test split: when a stage is finished, and where `evaluate` asks
for it. Every reading is counted."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from analysis.correctness import packed
from pipeline.storage.run_store import RunFolder
from trainers import measures, metrics
from trainers.data import DataConfig, Images, Splits
from trainers.data.views import Normaliser
from trainers.numerics import Numerics
from trainers.view_bank import image_outputs


class TestResult(NamedTuple):
    """Metrics of the test split, and tags that say which of its images are classified correctly."""

    metrics: dict[str, float]
    tags: dict[str, str]


def read_test(
    folder: RunFolder, model: nn.Module, data: Splits, config: DataConfig, numerics: Numerics
) -> TestResult:
    """Test metrics of the selected weights, and the record of each image."""
    test, reads = open_test(folder, data)
    device = data.train.device
    test = test.to(device)
    logits = image_outputs(model, test, Normaliser(config, numerics, device), numerics).logits
    found = measures.classification(logits, test.labels)
    values = {metrics.TEST + what: value for what, value in found.items()}
    values |= {metrics.TEST_READS: float(reads), metrics.TEST_IMAGES: float(len(test.labels))}
    correct_M = (logits.argmax(1) == test.labels).cpu().numpy()
    return TestResult(values, packed(correct_M))


def open_test(folder: RunFolder, data: Splits) -> tuple[Images, int]:
    """The test images, and how often the run of this folder has read them, this time included.
    The reading is counted durably before it is done."""
    reads = folder.count_test_read()
    return data.test, reads
