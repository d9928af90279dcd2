"""Measures against slow, obvious formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainers import measures, models
from trainers.numerics import Numerics

CLASSES, IMAGES = 7, 200


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return 2 * torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher() -> Tensor:
    return 2 * torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels() -> Tensor:
    """Class 3 has no image."""
    drawn = torch.randint(CLASSES - 1, (IMAGES,), generator=torch.Generator().manual_seed(2))
    return torch.where(drawn == 3, CLASSES - 1, drawn)


def _softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def _ranked(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda c: -row[c])


def test_top1_top5_and_nll(logits: Tensor, labels: Tensor) -> None:
    rows = list(zip(logits.tolist(), labels.tolist(), strict=True))
    found = measures.classification(logits, labels)
    assert set(found) == {"top1", "top5", "nll", "ece"}
    assert found["top1"] == pytest.approx(sum(_ranked(r)[0] == y for r, y in rows) / IMAGES)
    assert found["top5"] == pytest.approx(sum(y in _ranked(r)[:5] for r, y in rows) / IMAGES)
    nll = sum(-math.log(_softmax(r)[y]) for r, y in rows) / IMAGES
    assert found["nll"] == pytest.approx(nll, rel=1e-5)
    assert found["top1"] < found["top5"] < 1


@pytest.mark.parametrize("classes", [2, 5])
def test_top5_of_five_classes_is_not_given(classes: int) -> None:
    found = measures.classification(torch.eye(classes), torch.arange(classes))
    assert "top5" not in found
    assert found["top1"] == 1


def test_calibration_error_is_the_gap_of_each_bin_by_its_share(
    logits: Tensor, labels: Tensor
) -> None:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        confidence = max(_softmax(row))
        bins[min(14, math.ceil(confidence * 15) - 1)].append((confidence, _ranked(row)[0] == label))
    expected = sum(
        len(b) / IMAGES * abs(sum(hit for _, hit in b) / len(b) - sum(c for c, _ in b) / len(b))
        for b in bins
        if b
    )
    assert measures.calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1


def test_per_class_and_confusion_agree_with_counting(logits: Tensor, labels: Tensor) -> None:
    table = measures.confusion(logits, labels).tolist()
    rows = measures.per_class(logits, labels)
    assert len(rows) == CLASSES
    for true in range(CLASSES):
        of_class = [r for r, y in zip(logits.tolist(), labels.tolist(), strict=True) if y == true]
        guesses = [_ranked(r)[0] for r in of_class]
        assert table[true] == [guesses.count(c) for c in range(CLASSES)]
        assert rows[true].images == len(of_class)
        if of_class:
            assert rows[true].top1 == pytest.approx(guesses.count(true) / len(of_class))
            sure = sum(max(_softmax(r)) for r in of_class) / len(of_class)
            assert rows[true].confidence == pytest.approx(sure, rel=1e-5)
    assert rows[3] == measures.ClassRow(0, None, None)


def test_agreement_and_divergence(logits: Tensor, teacher: Tensor) -> None:
    pairs = list(zip(logits.tolist(), teacher.tolist(), strict=True))
    same = sum(_ranked(s)[0] == _ranked(t)[0] for s, t in pairs) / IMAGES
    assert measures.agreement(logits, teacher) == pytest.approx(same)
    nats = 0.0
    for s, t in pairs:
        p, q = _softmax(s), _softmax(t)
        nats += sum(q[c] * math.log(q[c] / p[c]) for c in range(CLASSES))
    assert measures.divergence(logits, teacher) == pytest.approx(nats / IMAGES, rel=1e-6)
    assert measures.divergence(logits, teacher) != measures.divergence(teacher, logits)
    assert measures.divergence(logits, logits) == pytest.approx(0, abs=1e-12)
    assert measures.agreement(logits, logits) == 1


class Small(nn.Module):
    """A convolution with groups and a linear layer, read as `models.outputs` reads a network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))

    def forward_head(self, final: Tensor, pre_logits: bool) -> Tensor:
        return final.mean((2, 3))

    def get_classifier(self) -> nn.Module:
        return self.fc


def test_macs_and_parameters_are_those_of_a_count_by_hand() -> None:
    net = Small().eval()
    conv, fc = 8 * 6 * 6 * (4 // 2) * 3 * 3, 8 * 5
    assert measures.macs(net, torch.zeros(1, 4, 6, 6)) == conv + fc
    assert measures.parameters(net) == 8 * 2 * 9 + 8 + 2 * 8 + 8 * 5 + 5


def test_macs_are_of_one_image_whatever_the_network_does_with_a_batch() -> None:
    net = models.build("resnet8", 10, 16, in_chans=1).eval()
    one = measures.macs(net, torch.zeros(1, 1, 16, 16))
    assert measures.macs(net, torch.zeros(3, 1, 16, 16)) == 3 * one


def test_speed_is_images_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of 1 s, one of them of 100 s, on a clock of our own: the median is not moved, and
    the warm-up does not count."""
    seconds = iter([50.0, 50.0, 50.0, 1.0, 100.0, 1.0, 1.0, 1.0])
    clock, calls = [0.0], [0]

    def tick() -> float:
        calls[0] += 1
        if calls[0] % 2 == 0:
            clock[0] += next(seconds)
        return clock[0]

    monkeypatch.setattr("trainers.measures.time.perf_counter", tick)
    found = measures.images_per_second(Small().eval(), torch.zeros(16, 4, 6, 6), Numerics())
    assert found == 16
