"""The test split is read once and recorded image by image."""

from types import SimpleNamespace

import torch

from analysis.correctness import unpacked
from pipeline.stages import test_split
from trainers import metrics
from trainers.data import Images


def test_the_record_of_the_images_has_the_accuracy_that_is_logged(monkeypatch) -> None:
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    images = Images(torch.zeros(50, 1, 2, 2, dtype=torch.uint8), torch.arange(50) % 3, "digest")
    splits = SimpleNamespace(train=images, test=images)
    folder = SimpleNamespace(count_test_read=lambda: 1)
    monkeypatch.setattr(test_split, "image_outputs", lambda *_: SimpleNamespace(logits=logits))
    monkeypatch.setattr(test_split, "Normaliser", lambda *_: None)
    found = test_split.read_test(folder, None, splits, None, None)  # type: ignore[arg-type]
    record = unpacked(found.tags)
    assert record is not None
    assert found.metrics[metrics.TEST_IMAGES] == len(record) == 50
    assert abs(found.metrics[metrics.TEST_TOP1] - record.mean()) < 1e-6
    assert record.tolist() == (logits.argmax(1) == images.labels).tolist()
