"""The only place that reads the test split: when a stage is finished, and where `evaluate` asks
for it. Every reading is counted."""

from __future__ import annotations

from torch import nn

from pipeline.storage.run_store import RunFolder
from trainers import measures, metrics
from trainers.data import DataConfig, Images, Splits
from trainers.data.views import Normaliser
from trainers.numerics import Numerics
from trainers.view_bank import image_outputs


def read_test(
    folder: RunFolder, model: nn.Module, data: Splits, config: DataConfig, numerics: Numerics
) -> dict[str, float]:
    """Test metrics of the selected weights."""
    test, reads = open_test(folder, data)
    device = data.train.device
    test = test.to(device)
    logits = image_outputs(model, test, Normaliser(config, numerics, device), numerics).logits
    found = measures.classification(logits, test.labels)
    return {metrics.TEST + what: value for what, value in found.items()} | {
        metrics.TEST_READS: float(reads)
    }


def open_test(folder: RunFolder, data: Splits) -> tuple[Images, int]:
    """The test images, and how often the run of this folder has read them, this time included.
    The reading is counted durably before it is done."""
    reads = folder.count_test_read()
    return data.test, reads
