"""Targets and per-sample weights. Shapes: B examples, C classes, K teachers."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers import losses, targets
from trainers.methods.asib.config import AsibConfig
from trainers.methods.asib.guidance import guidance
from trainers.methods.asib.method import Asib
from trainers.methods.base import Dims, StepPosition, TeacherOutputs
from trainers.mixing import UNMIXED, Mix, Shown
from trainers.models import Outputs

quick = settings(deadline=None, max_examples=40, derandomize=True)
MIDDLE = StepPosition(epoch=40, total=80)  # after the warm-up, before the cooldown


def normal(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=draw, dtype=torch.float64)


@quick
@given(
    st.lists(st.floats(0.01, 50), min_size=1, max_size=5), st.integers(0, 1000), st.floats(-5, 5)
)
def test_weights_of_the_average_sum_to_one(
    weights: list[float], seed: int, constant: float
) -> None:
    count = len(weights)
    same = torch.full((count, 3, 4), constant, dtype=torch.float64)
    found = targets.average_logits(same, weights)
    torch.testing.assert_close(found, same[0], rtol=1e-12, atol=1e-12)
    teachers = normal(count, 3, 4, seed=seed)
    want = sum(w / sum(weights) * t for w, t in zip(weights, teachers, strict=True))
    torch.testing.assert_close(
        targets.average_logits(teachers, weights), want, rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(
        targets.average_logits(teachers, None), teachers.mean(0), rtol=1e-12, atol=1e-12
    )


def method(teachers: int, **options: object) -> Asib:
    return Asib(AsibConfig(token_dim=8, **options), Dims(4, (4,) * teachers, 5))


@pytest.mark.parametrize("target_view", ["two_view", "clean"])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("weights", [None, [0.7, 0.2, 0.1]])
@pytest.mark.parametrize("kd_target", ["avg", "weighted_conf", "auto", "synergy"])
def test_identical_teachers_teach_what_one_of_them_teaches(
    kd_target: str, weights: list[float] | None, mixed: bool, target_view: str
) -> None:
    one, y = normal(1, 6, 5), torch.arange(6) % 5
    synergy = None if kd_target in ("avg", "weighted_conf") else normal(6, 5, seed=1)
    options = {"kd_target": kd_target, "target_view": target_view}
    single = method(1, **options)
    several = method(3, teacher_weights=weights, **options)
    mix = Mix(0.3, torch.tensor([5, 4, 3, 2, 1, 0])) if mixed else UNMIXED
    pairs = (
        (single, TeacherOutputs(one, synergy)),
        (several, TeacherOutputs(one.expand(3, 6, 5), synergy)),
    )
    alone, together = (
        guidance(m.config, teacher_outputs, y, UNMIXED, MIDDLE) for m, teacher_outputs in pairs
    )
    torch.testing.assert_close(alone[:2], together[:2], rtol=1e-12, atol=1e-12)
    student = Outputs(normal(6, 5, seed=2), normal(6, 4))
    alone, together = (
        m.student_terms(student, teacher_outputs, y, mix, MIDDLE).losses
        for m, teacher_outputs in pairs
    )
    assert alone["kd"] > 1e-3
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_the_average_of_identical_teachers_is_plain_kd(teachers: int) -> None:
    one, student = normal(1, 6, 5), normal(6, 5, seed=2)
    m = method(teachers, kd_target="avg", kd_uncertainty_weight=0.0, kd_max_ratio=1e9)
    terms = m.student_terms(
        Outputs(student, normal(6, 4)),
        TeacherOutputs(one.expand(teachers, 6, 5)),
        torch.arange(6) % 5,
        UNMIXED,
        MIDDLE,
    )
    want = 0.3 * losses.kd(student, one[0], 4.0).mean()
    torch.testing.assert_close(terms.losses["kd"], want, rtol=1e-12, atol=1e-12)


def test_uncertainty_is_the_entropy_at_temperature_one() -> None:
    logits = normal(5, 4)
    for strength, floor in ((0.5, 0.2), (2.0, 0.0), (10.0, 0.4)):
        found = targets.uncertainty_weight(logits, strength, floor)
        for b, row in enumerate(logits):
            p = [math.exp(z) for z in row.tolist()]
            p = [x / sum(p) for x in p]
            entropy = -sum(x * math.log(x) for x in p)
            want = max(floor, 1 / (1 + strength * entropy / math.log(4)))
            assert float(found[b]) == pytest.approx(want, rel=1e-12)
    assert (targets.uncertainty_weight(logits, 10.0, 0.4) == 0.4).any()


def test_uncertainty_of_the_two_extremes() -> None:
    sure, unsure = torch.tensor([[50.0, 0, 0, 0]]), torch.zeros(1, 4)
    assert targets.uncertainty_weight(sure, 0.5, 0.2).item() == pytest.approx(1.0)
    assert targets.uncertainty_weight(unsure, 0.5, 0.2).item() == pytest.approx(1 / 1.5)
    assert targets.uncertainty_weight(unsure, 50.0, 0.2).item() == pytest.approx(0.2)


def test_certainty_is_the_mean_precision_without_gradient() -> None:
    logvar = normal(3, 4).requires_grad_()
    found = targets.certainty(logvar)
    want = [sum(math.exp(-v) for v in row) / 4 for row in logvar.tolist()]
    assert found.tolist() == pytest.approx(want, rel=1e-12)
    assert not found.requires_grad


def test_certainty_weights_have_mean_one_before_they_are_clamped() -> None:
    sure = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert targets.certainty_weight(sure, 0.0, 10.0).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2])
    assert targets.certainty_weight(sure, 0.5, 1.5).tolist() == pytest.approx([0.5, 2 / 3, 1, 1.5])
    assert targets.certainty_weight(7 * sure, 0.5, 1.5).tolist() == pytest.approx(
        targets.certainty_weight(sure, 0.5, 1.5).tolist()
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.5])
def test_soft_cross_entropy_is_torchs_with_smoothing(smoothing: float) -> None:
    logits, y = normal(6, 5).float(), torch.arange(6) % 5
    soft = targets.soft_labels(y, 5, smoothing, UNMIXED)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    want = F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(targets.soft_cross_entropy(logits, soft), want)


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.8, 1.0])
def test_mixed_soft_cross_entropy_is_the_mixture_of_both_labels(
    lam: float, smoothing: float
) -> None:
    logits, y = normal(6, 5).float(), torch.arange(6) % 5
    mix = Mix(lam, torch.tensor([3, 0, 1, 2, 5, 4]))
    soft = targets.soft_labels(y, 5, smoothing, mix)
    first = F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
    second = F.cross_entropy(logits, y[mix.partner], reduction="none", label_smoothing=smoothing)
    want = lam * first + (1 - lam) * second
    torch.testing.assert_close(targets.soft_cross_entropy(logits, soft), want)


def test_synergy_is_preferred_where_it_is_strictly_better() -> None:
    y = torch.tensor([0, 0, 0, 1])
    average = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    synergy = torch.tensor([[2.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [0.0, 0, 0]])
    assert targets.prefer_synergy(synergy, average, Shown(y)).tolist() == [True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_go_to_the_average(dtype: torch.dtype) -> None:
    logits = normal(50, 10).to(dtype)
    assert not targets.prefer_synergy(logits, logits.clone(), Shown(torch.arange(50) % 10)).any()


def test_disagreement_is_the_share_of_images_with_different_top_one() -> None:
    choices = torch.tensor([[0, 1, 2, 0], [0, 1, 1, 0], [0, 2, 2, 0]])
    logits = F.one_hot(choices, 3).float()
    assert targets.disagreement(logits).item() == 0.5
    assert targets.disagreement(logits[:1]).item() == 0.0
