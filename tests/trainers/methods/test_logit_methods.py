"""kd, dkd, dist, kd_ls: value and gradient against slow formulas, and what must hold of them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.trainers.methods.parts import (
    LATE,
    LOGIT,
    TIGHT,
    Case,
    case,
    divergence,
    mean,
    mixed,
    normal,
    probabilities,
    targets_of,
)
from trainers import losses
from trainers.methods.base import StepPosition
from trainers.mixing import UNMIXED, Mix

SHAPES = [(1, 2), (1, 10), (3, 2), (5, 7)]
AT = [(shape, tau) for shape in SHAPES for tau in (0.5, 1.0, 4.0)] + [((2, 1000), 4.0)]


def slow_kd(c: Case, rows_BC: Tensor, mix: Mix, tau: float) -> Tensor:
    q = targets_of(rows_BC, mix, tau)
    pairs = zip(q, c.student.logits, strict=True)
    return 0.9 * mean([tau**2 * divergence(t, probabilities(s, tau)) for t, s in pairs])


def slow_dkd_of(q: Tensor, p: Tensor, y: int, alpha: float, beta: float, tau: float) -> Tensor:
    rest = [c for c in range(len(q)) if c != y]
    pairs = [torch.stack([x[y], x[rest].sum()]) for x in (q, p)]
    others = [x[rest] for x in (q, p)]
    tckd, nckd = divergence(*pairs), divergence(*(x / x.sum() for x in others))
    return tau**2 * (alpha * tckd + beta * nckd)


def slow_dkd(c: Case, rows_BC: Tensor, mix: Mix, tau: float) -> Tensor:
    found = []
    for i, q in enumerate(targets_of(rows_BC, mix, tau)):
        p, y = probabilities(c.student.logits[i], tau), int(c.labels[i])
        one = slow_dkd_of(q, p, y, 1, 8, tau)
        if mix.partner is not None:
            other = int(c.labels[mix.partner[i]])
            one = mix.lam * one + (1 - mix.lam) * slow_dkd_of(q, p, other, 1, 8, tau)
        found.append(one)
    return mean(found)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.sum() / len(a), b - b.sum() / len(b)
    return (a * b).sum() / ((a**2).sum().sqrt() * (b**2).sum().sqrt() + 1e-8)


def slow_dist(c: Case, rows_BC: Tensor, mix: Mix, tau: float) -> Tensor:
    q = torch.stack(targets_of(rows_BC, mix, tau))
    p = torch.stack([probabilities(s, tau) for s in c.student.logits])
    between = mean([1 - correlation(a, b) for a, b in zip(p, q, strict=True)])
    if len(p) == 1:  # nothing varies within a class
        return tau**2 * (2 * between + 2)
    within = mean([1 - correlation(a, b) for a, b in zip(p.T, q.T, strict=True)])
    return tau**2 * (2 * between + 2 * within)


def z_scores(row_C: Tensor) -> Tensor:
    middle = row_C.sum() / len(row_C)
    deviation = (((row_C - middle) ** 2).sum() / (len(row_C) - 1)).sqrt()
    return (row_C - middle) / (deviation + 1e-7)


def slow_kd_ls(c: Case, rows_BC: Tensor, mix: Mix, tau: float) -> Tensor:
    q = targets_of(torch.stack([z_scores(row) for row in rows_BC]), mix, tau)
    pairs = zip(q, c.student.logits, strict=True)
    return 9 * mean([tau**2 * divergence(t, probabilities(z_scores(s), tau)) for t, s in pairs])


SLOW: dict[str, Callable[[Case, Tensor, Mix, float], Tensor]] = {
    "kd": slow_kd,
    "dkd": slow_dkd,
    "dist": slow_dist,
    "kd_ls": slow_kd_ls,
}


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize(("shape", "tau"), AT)
@pytest.mark.parametrize("name", LOGIT)
def test_value_and_gradient_are_the_formula(
    name: str, shape: tuple[int, int], tau: float, mixing: bool
) -> None:
    batch, classes = shape
    c = case(name, batch, classes, teachers=1, tau=tau)
    mix = mixed(batch) if mixing else UNMIXED
    got, want = c.term(mix), SLOW[name](c, c.teacher_outputs.teachers[0], mix, tau)
    torch.testing.assert_close(got, want, **TIGHT)
    for fast, slow in zip(c.gradient(got), c.gradient(want), strict=True):
        torch.testing.assert_close(fast, slow, **TIGHT)


@pytest.mark.parametrize("weighting", ["equal", "entropy", "confidence"])
@pytest.mark.parametrize("name", LOGIT)
def test_several_teachers_are_their_weighted_mean(name: str, weighting: str) -> None:
    c = case(name, teachers=3, teacher="avg", weighting=weighting)
    shares = []
    for one in c.teacher_outputs.teachers:
        p = torch.stack([probabilities(row) for row in one])
        known = math.log(p.shape[1]) + (p * p.log()).sum(1)
        shares.append(
            {"equal": torch.ones_like(known), "entropy": known, "confidence": p.amax(1)}[weighting]
        )
    total = sum(shares)
    pairs = zip(shares, c.teacher_outputs.teachers, strict=True)
    average = sum((share / total)[:, None] * one for share, one in pairs)
    tau = c.method.config.tau
    torch.testing.assert_close(c.term(), SLOW[name](c, average, UNMIXED, tau), **TIGHT)


@pytest.mark.parametrize("name", LOGIT)
def test_the_first_image_alone_can_be_the_target(name: str) -> None:
    c = case(name, target_view="clean")
    torch.testing.assert_close(c.term(mixed(4)), c.term(), **TIGHT)


@pytest.mark.parametrize("name", LOGIT)
def test_targets_of_the_mixed_image_itself_are_not_mixed_again(name: str) -> None:
    c = case(name, target_view="same")
    assert c.method.live_targets
    if name != "dkd":
        torch.testing.assert_close(c.term(mixed(4)), c.term(), **TIGHT)
        return
    rolled = c._replace(labels=c.labels.roll(1))  # labels are of both images all the same
    want = 0.3 * c.term() + 0.7 * rolled.term()
    torch.testing.assert_close(c.term(mixed(4)), want, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("name", LOGIT)
def test_extreme_logits_are_finite(name: str, mixing: bool, dtype: torch.dtype) -> None:
    for batch, classes in ((1, 2), (4, 10)):
        c = case(name, batch, classes)
        for scale in (1.0, 1e4):
            far = (c.student.logits.detach().sign() * scale).to(dtype).requires_grad_()
            teachers = (c.teacher_outputs.teachers.sign() * 1e4).float()
            extreme = c._replace(
                student=c.student._replace(logits=far),
                teacher_outputs=c.teacher_outputs._replace(teachers=teachers),
            )
            loss = extreme.term(mixed(batch) if mixing else UNMIXED)
            (gradient,) = torch.autograd.grad(loss, far)
            assert loss.dtype == torch.float32
            assert loss.isfinite()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOGIT)
def test_a_student_that_agrees_has_no_loss_and_no_gradient(name: str) -> None:
    c = case(name, teachers=1)
    same = c.teacher_outputs.teachers[0].clone().requires_grad_()
    agreed = c._replace(student=c.student._replace(logits=same))
    loss, least = agreed.term(), 1e-3 if name == "dist" else 1e-12  # 1e-8 next to small norms
    assert loss.detach().abs() < least
    assert agreed.gradient(loss)[0].abs().max() < least


@pytest.mark.parametrize("name", LOGIT)
def test_shifted_logits_give_the_same_loss(name: str) -> None:
    c = case(name)
    moved = c._replace(
        student=c.student._replace(logits=c.student.logits + normal(4, 1, seed=9)),
        teacher_outputs=c.teacher_outputs._replace(
            teachers=c.teacher_outputs.teachers + normal(1, 4, 1, seed=8)
        ),
    )
    torch.testing.assert_close(moved.term(), c.term(), **TIGHT)


def test_standardised_logits_have_no_scale() -> None:
    z = normal(5, 12)
    scaled = 3.7 * z + normal(5, 1, seed=1)
    near = {"atol": 1e-6, "rtol": 0.0}
    want = losses.standardised(z)
    torch.testing.assert_close(losses.standardised(scaled), want, **near)
    torch.testing.assert_close(want.std(-1), torch.ones(5).double(), **near)


def test_constant_logits_standardise_to_zero_with_a_finite_gradient() -> None:
    z = torch.full((2, 4), 3.0, requires_grad=True)
    out = losses.standardised(z)
    (gradient,) = torch.autograd.grad((out * torch.arange(4.0)).sum(), z)
    assert (out == 0).all()
    assert gradient.isfinite().all()


def test_pearson_distance_knows_no_scale_and_no_shift() -> None:
    a, b = normal(6, 9, seed=1), normal(6, 9, seed=2)
    want = losses.pearson_distance(a, b)
    moved = losses.pearson_distance(2.5 * a + 3, 0.4 * b - 1)
    torch.testing.assert_close(moved, want, atol=1e-8, rtol=0)
    torch.testing.assert_close(losses.pearson_distance(b, a), want, **TIGHT)
    torch.testing.assert_close(losses.pearson_distance(a, -b), 2 - want, **TIGHT)
    numbers = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)]
    torch.testing.assert_close(want, 1 - torch.stack(numbers), atol=1e-8, rtol=0)


def test_at_a_high_temperature_kd_is_the_distance_of_centred_logits() -> None:
    tau, c = 1e4, case("kd", teachers=1, tau=1e4)
    assert c.method.config.tau == tau
    apart = c.student.logits - c.teacher_outputs.teachers[0]
    want = (apart - apart.mean(1, keepdim=True)).square().sum(1).mean() / (2 * 7)
    torch.testing.assert_close(c.term() / 0.9, want, rtol=1e-3, atol=0)


def test_kd_is_tckd_and_what_is_left_times_nckd() -> None:
    c, tau = case("kd", teachers=1), 4.0
    t, s, y = c.teacher_outputs.teachers[0], c.student.logits, c.labels
    left = 1 - torch.softmax(t / tau, 1).gather(1, y[:, None])[:, 0]
    target = losses.dkd(s, t, y, alpha=1, beta=0, temperature=tau)
    others = losses.dkd(s, t, y, alpha=0, beta=1, temperature=tau)
    torch.testing.assert_close(losses.kd(s, t, tau), target + left * others, **TIGHT)


def test_dkd_rises_over_its_first_epochs() -> None:
    c = case("dkd")
    terms = [
        float(c.term(position=StepPosition(epoch, 240)).detach()) for epoch in (0, 9, 19, 20, 239)
    ]
    want = [share * float(c.term(position=LATE).detach()) for share in (1 / 20, 10 / 20, 1, 1, 1)]
    assert terms == pytest.approx(want)
    own = case("dkd", warmup_epochs=4.0)
    assert float(own.term(position=StepPosition(1, 240)).detach()) == pytest.approx(want[-1] / 2)
