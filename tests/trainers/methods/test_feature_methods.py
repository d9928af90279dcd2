"""fitnet and at: value and gradient against slow formulas, and what must hold of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainers.methods.parts import TEACHER_MAPS, TIGHT, Case, case, mean, mixed
from trainers.methods.fitnet import middle


def smaller(one: Tensor, other: Tensor) -> list[Tensor]:
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return [F.adaptive_avg_pool2d(x, size) for x in (one, other)]


def slow_at(c: Case) -> Tensor:
    found = []
    for maps in c.teacher_outputs.maps:
        total = 0.0
        for at in (-3, -2, -1):
            s, t = smaller(c.student.maps[at], maps[at])
            for i in range(len(s)):
                q = [(f[i] ** 2).mean(0).flatten() for f in (s, t)]
                q = [x / (x * x).sum().sqrt() for x in q]
                total = total + ((q[0] - q[1]) ** 2).mean() / len(s)
        found.append(total)
    return 1000 * mean(found)


def slow_fitnet(c: Case) -> Tensor:
    found = []
    for regressor, maps in zip(c.method.regressors, c.teacher_outputs.maps, strict=True):
        s, t = smaller(c.student.maps[-2], maps[-2])
        convolution, norm = regressor[0], regressor[1]
        z = torch.einsum("bchw,dc->bdhw", s, convolution.weight[:, :, 0, 0])
        average = z.mean((0, 2, 3), keepdim=True)
        variance = z.var((0, 2, 3), keepdim=True, unbiased=False)
        z = (z - average) / (variance + norm.eps).sqrt()
        guess = (z * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        found.append(((guess - t) ** 2).mean())
    return 100 * mean(found)


SLOW = {"at": slow_at, "fitnet": slow_fitnet}


@pytest.mark.parametrize("teacher", ["best", "avg", "1"])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", SLOW)
def test_value_and_gradient_are_the_formula(name: str, batch: int, teacher: str) -> None:
    c = case(name, batch, teacher=teacher)
    got, want = c.term(), SLOW[name](c)
    torch.testing.assert_close(got, want, **TIGHT)
    for fast, slow in zip(c.gradient(got), c.gradient(want), strict=True):
        torch.testing.assert_close(fast, slow, **TIGHT)


@pytest.mark.parametrize("name", SLOW)
def test_maps_of_mixed_images_are_not_mixed_again(name: str) -> None:
    c = case(name)
    torch.testing.assert_close(c.term(mixed(4)), c.term(), **TIGHT)


def test_attention_has_no_scale() -> None:
    c = case("at")
    louder = tuple(tuple(7.5 * f for f in maps) for maps in c.teacher_outputs.maps)
    moved = c._replace(teacher_outputs=c.teacher_outputs._replace(maps=louder))
    torch.testing.assert_close(moved.term(), c.term(), **TIGHT)


def test_another_power_is_another_attention() -> None:
    assert not torch.isclose(case("at", p=1.0).term(), case("at").term())


def test_the_middle_is_the_second_of_the_last_three() -> None:
    assert [middle(tuple(range(n))) for n in (1, 2, 3, 4, 5)] == [0, 1, 1, 2, 3]


def test_a_regressor_has_the_teachers_channels_and_is_the_methods_own() -> None:
    method = case("fitnet", teacher="avg").method
    assert [r[0].out_channels for r in method.regressors] == [TEACHER_MAPS[1][0]] * 2
    assert {name for name, _ in method.trainable("B")} == dict(method.named_parameters()).keys()
    assert method.trainable("A") == []


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_features_are_finite(name: str, dtype: torch.dtype) -> None:
    c = case(name)
    c.method.float()
    kind = torch.float32 if name == "fitnet" else dtype  # autocast casts for the convolution
    leaves = tuple((1e4 * f.detach()).to(kind).requires_grad_() for f in c.student.maps)
    teacher = tuple(tuple((1e4 * f).to(dtype) for f in maps) for maps in c.teacher_outputs.maps)
    large = c._replace(
        student=c.student._replace(maps=leaves),
        teacher_outputs=c.teacher_outputs._replace(maps=teacher),
    )
    loss = large.term()
    assert loss.isfinite()
    for gradient in torch.autograd.grad(loss, leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()
