"""Every loss against a slow formula, one example at a time, and its properties.

Shapes: B examples, C classes, D features, HW a feature map.
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers import losses, targets

quick = settings(deadline=None, max_examples=40, derandomize=True)

SHAPES = [(1, 2), (1, 10), (3, 2), (6, 7), (2, 100)]
TEMPERATURES = [0.5, 1.0, 4.0]
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def normal(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=draw, dtype=torch.float64)


def labels(count: int, classes: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(5))


def probabilities(row_C: Tensor, temperature: float = 1.0) -> Tensor:
    powers = [torch.exp(z / temperature) for z in row_C]
    return torch.stack([power / sum(powers) for power in powers])


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q), term by term; 0·log 0 = 0."""
    terms = [a * torch.log(a / b) for a, b in zip(p, q, strict=True) if a > 0]
    return sum(terms, torch.zeros((), dtype=torch.float64))


def same_value_and_gradient(
    fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """`fast` gives one value per example, each `slow` of that example's rows alone; so do the
    gradients, under weights that differ per example."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    got = fast(*leaves)
    rows = zip(*(leaf.unbind(0) for leaf in leaves), strict=True)
    want = torch.stack([slow(i, *row) for i, row in enumerate(rows)])
    assert got.shape == (len(inputs[0]),)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, want, **TIGHT)
    weights = torch.arange(1.0, len(inputs[0]) + 1, dtype=torch.float64)
    fast_gradients = torch.autograd.grad((got * weights).sum(), leaves)
    slow_gradients = torch.autograd.grad((want * weights).sum(), leaves)
    for fast_gradient, slow_gradient in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(fast_gradient, slow_gradient, **TIGHT)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_is_the_formula(shape: tuple[int, int], smoothing: float) -> None:
    y, classes = labels(*shape), shape[1]

    def slow(i: int, row: Tensor) -> Tensor:
        p = probabilities(row)
        share = [smoothing / classes + (1 - smoothing) * (c == int(y[i])) for c in range(classes)]
        return -sum(share[c] * torch.log(p[c]) for c in range(classes))

    same_value_and_gradient(lambda z: losses.cross_entropy(z, y, smoothing), slow, normal(*shape))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kd_is_the_formula(shape: tuple[int, int], temperature: float) -> None:
    def slow(i: int, s: Tensor, t: Tensor) -> Tensor:
        p, q = probabilities(s, temperature), probabilities(t, temperature)
        return temperature**2 * divergence(q, p)

    same_value_and_gradient(
        lambda s, t: losses.kd(s, t, temperature), slow, normal(*shape), normal(*shape, seed=1)
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kl_to_is_the_formula(shape: tuple[int, int], temperature: float) -> None:
    q = torch.softmax(normal(*shape, seed=1), -1)

    def slow(i: int, q: Tensor, s: Tensor) -> Tensor:
        return temperature**2 * divergence(q, probabilities(s, temperature))

    same_value_and_gradient(lambda q, s: losses.kl_to(q, s, temperature), slow, q, normal(*shape))


def test_kl_to_allows_targets_of_probability_zero() -> None:
    q = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    s = normal(2, 3).requires_grad_()
    got = losses.kl_to(q, s, 2.0)
    want = [4 * divergence(q[i], probabilities(s[i], 2.0)) for i in range(2)]
    torch.testing.assert_close(got, torch.stack(want), **TIGHT)
    (gradient,) = torch.autograd.grad(got.sum(), s)
    torch.testing.assert_close(gradient, 2 * (torch.softmax(s / 2, -1) - q), **TIGHT)


@pytest.mark.parametrize(
    ("alpha", "beta", "temperature"), [(1.0, 0.0, 4.0), (0.0, 1.0, 4.0), (1.0, 8.0, 1.0)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_dkd_is_the_formula(
    shape: tuple[int, int], alpha: float, beta: float, temperature: float
) -> None:
    y, classes = labels(*shape), shape[1]

    def slow(i: int, s: Tensor, t: Tensor) -> Tensor:
        p, q = probabilities(s, temperature), probabilities(t, temperature)
        others = [c for c in range(classes) if c != y[i]]
        rest_p, rest_q = sum(p[c] for c in others), sum(q[c] for c in others)
        tckd = divergence(torch.stack([q[y[i]], rest_q]), torch.stack([p[y[i]], rest_p]))
        nckd = divergence(
            torch.stack([q[c] / rest_q for c in others]),
            torch.stack([p[c] / rest_p for c in others]),
        )
        return temperature**2 * (alpha * tckd + beta * nckd)

    same_value_and_gradient(
        lambda s, t: losses.dkd(s, t, y, alpha=alpha, beta=beta, temperature=temperature),
        slow,
        normal(*shape),
        normal(*shape, seed=1),
    )


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 3, 4, 4), (2, 5, 4, 4)), ((1, 2, 3, 3), (1, 2, 6, 6)), ((3, 4, 5, 7), (3, 2, 4, 9))],
)
def test_attention_transfer_is_the_formula(
    student: tuple[int, ...], teacher: tuple[int, ...], p: int
) -> None:
    height, width = min(student[2], teacher[2]), min(student[3], teacher[3])

    def pooled(f_CHW: Tensor, c: int, i: int, j: int) -> Tensor:
        """Mean of window (i, j) of height × width that together cover the map."""
        h, w = f_CHW.shape[1:]
        rows = range(i * h // height, math.ceil((i + 1) * h / height))
        columns = range(j * w // width, math.ceil((j + 1) * w / width))
        cells = [f_CHW[c, y, x] for y in rows for x in columns]
        return sum(cells) / len(cells)

    def attention(f_CHW: Tensor) -> list[Tensor]:
        cells = [
            sum(abs(pooled(f_CHW, c, i, j)) ** p for c in range(len(f_CHW))) / len(f_CHW)
            for i in range(height)
            for j in range(width)
        ]
        length = torch.sqrt(sum(cell**2 for cell in cells))
        return [cell / length for cell in cells]

    def slow(_: int, s: Tensor, t: Tensor) -> Tensor:
        pairs = zip(attention(s), attention(t), strict=True)
        return sum((a - b) ** 2 for a, b in pairs) / (height * width)

    same_value_and_gradient(
        lambda s, t: losses.attention_transfer(s, t, p=p),
        slow,
        normal(*student),
        normal(*teacher, seed=1),
    )


@pytest.mark.parametrize("shape", [(1, 3), (4, 2), (2, 3, 2, 2)])
def test_hint_is_the_formula(shape: tuple[int, ...]) -> None:
    def slow(_: int, s: Tensor, t: Tensor) -> Tensor:
        squares = [(a - b) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)]
        return sum(squares) / len(squares)

    same_value_and_gradient(losses.hint, slow, normal(*shape), normal(*shape, seed=1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 3), (2, 64)])
def test_rate_is_the_formula(shape: tuple[int, int]) -> None:
    def slow(_: int, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL of two Gaussians, ln(σ₂/σ₁) + (σ₁² + (μ₁ - μ₂)²) / (2σ₂²) - ½ with μ₂ = 0, σ₂ = 1."""
        pairs = list(zip(mu, logvar, strict=True))
        return sum(-torch.log(torch.exp(v / 2)) + (torch.exp(v) + m**2) / 2 - 0.5 for m, v in pairs)

    same_value_and_gradient(losses.gaussian_rate, slow, normal(*shape), normal(*shape, seed=1))


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_the_formula(shape: tuple[int, int]) -> None:
    def slow(_: int, row: Tensor) -> Tensor:
        return -sum(p * torch.log(p) for p in probabilities(row))

    same_value_and_gradient(losses.entropy, slow, normal(*shape))


# Properties ---------------------------------------------------------------------------------

shapes = st.tuples(st.integers(1, 6), st.integers(2, 40))
seeds = st.integers(0, 10_000)


@quick
@given(shapes, seeds, st.floats(0.3, 10))
def test_distilling_from_oneself_costs_nothing(
    shape: tuple[int, int], seed: int, temperature: float
) -> None:
    z, zero = normal(*shape, seed=seed).requires_grad_(), torch.zeros(shape[0], dtype=torch.float64)
    dkd = losses.dkd(z, z.detach(), labels(*shape), alpha=1, beta=8, temperature=temperature)
    kd = losses.kd(z, z.detach(), temperature)
    for value in (kd, dkd, losses.kl_to(torch.softmax(z / temperature, -1), z, temperature)):
        torch.testing.assert_close(value, zero, rtol=0, atol=1e-12)
    for value in (kd, dkd):
        (gradient,) = torch.autograd.grad(value.sum(), z)
        assert gradient.abs().max() < 1e-12


@quick
@given(shapes, seeds, st.floats(-50, 50), st.floats(0.3, 10))
def test_logit_losses_ignore_a_shift_of_all_classes(
    shape: tuple[int, int], seed: int, shift: float, temperature: float
) -> None:
    s, t, y = normal(*shape, seed=seed), normal(*shape, seed=seed + 1), labels(*shape)
    moved, also = s + shift, t - 2 * shift
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(
        losses.kd(moved, also, temperature), losses.kd(s, t, temperature), **close
    )
    torch.testing.assert_close(losses.cross_entropy(moved, y), losses.cross_entropy(s, y), **close)
    torch.testing.assert_close(losses.entropy(moved), losses.entropy(s), **close)
    weights = {"alpha": 1.0, "beta": 8.0, "temperature": temperature}
    torch.testing.assert_close(
        losses.dkd(moved, also, y, **weights), losses.dkd(s, t, y, **weights), **close
    )


@quick
@given(shapes, seeds, st.floats(0.3, 10))
def test_kd_is_tckd_plus_the_rest_share_of_nckd(
    shape: tuple[int, int], seed: int, temperature: float
) -> None:
    s, t, y = normal(*shape, seed=seed), normal(*shape, seed=seed + 1), labels(*shape)
    tckd = losses.dkd(s, t, y, alpha=1, beta=0, temperature=temperature)
    nckd = losses.dkd(s, t, y, alpha=0, beta=1, temperature=temperature)
    p_target = torch.softmax(t / temperature, -1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(
        losses.kd(s, t, temperature), tckd + (1 - p_target) * nckd, rtol=1e-9, atol=1e-12
    )


@quick
@given(shapes, seeds)
def test_kd_at_high_temperature_is_the_squared_distance_of_centred_logits(
    shape: tuple[int, int], seed: int
) -> None:
    s, t = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    gap = s - t
    limit = (gap - gap.mean(1, keepdim=True)).square().sum(1) / (2 * shape[1])
    torch.testing.assert_close(losses.kd(s, t, 1e4), limit, rtol=1e-2, atol=1e-4)


@quick
@given(shapes, seeds, st.floats(0.3, 10))
def test_divergences_and_rate_are_not_negative(
    shape: tuple[int, int], seed: int, temperature: float
) -> None:
    s, t, y = normal(*shape, seed=seed), normal(*shape, seed=seed + 1), labels(*shape)
    assert losses.kd(s, t, temperature).min() >= -1e-12
    for alpha, beta in ((1, 0), (0, 1)):
        value = losses.dkd(s, t, y, alpha=alpha, beta=beta, temperature=temperature)
        assert value.min() >= -1e-12
    assert losses.gaussian_rate(s, t).min() >= -1e-12


def test_rate_is_zero_at_the_standard_normal_and_only_there() -> None:
    zero = torch.zeros(3, 8, dtype=torch.float64)
    assert torch.equal(losses.gaussian_rate(zero, zero), zero[:, 0])
    assert losses.gaussian_rate(zero + 0.1, zero).min() > 0
    assert losses.gaussian_rate(zero, zero + 0.1).min() > 0
    assert losses.gaussian_rate(zero, zero - 0.1).min() > 0


@pytest.mark.parametrize("scale", [1e-3, 0.1, 7.0, 1e4])
@pytest.mark.parametrize("p", [1, 2])
def test_attention_transfer_ignores_the_scale_of_features(scale: float, p: int) -> None:
    s, t = normal(2, 3, 4, 4), normal(2, 5, 4, 4, seed=1)
    want = losses.attention_transfer(s, t, p=p)
    assert want.min() > 1e-4
    for got in (
        losses.attention_transfer(scale * s, t, p=p),
        losses.attention_transfer(s, scale * t, p=p),
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("p", [4, 8, 60])
def test_attention_transfer_of_a_high_power_neither_overflows_nor_vanishes(
    scale: float, p: int
) -> None:
    s, t = normal(2, 3, 4, 4).float(), normal(2, 5, 4, 4, seed=1).float()
    want = losses.attention_transfer(s.double(), t.double(), p=p)
    assert want.min() > 1e-4
    scaled = (scale * s).requires_grad_()
    got = losses.attention_transfer(scaled, scale * t, p=p)
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(got.sum(), scaled)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_attention_transfer_of_a_dead_map_is_finite() -> None:
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = losses.attention_transfer(s, normal(2, 3, 4, 4).float())
    (gradient,) = torch.autograd.grad(value.sum(), s)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


# Extreme logits -----------------------------------------------------------------------------

HUGE = 1e4


def extreme(classes: int, top: int) -> Tensor:
    """One class at +1e4, the others at -1e4, a row per label."""
    z = torch.full((classes, classes), -HUGE)
    z[:, top] = HUGE
    return z


LOGIT_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda s, t, y: losses.cross_entropy(s, y, 0.05),
    "soft_cross_entropy": lambda s, t, y: targets.soft_cross_entropy(s, torch.softmax(t, -1)),
    "kl_to": lambda s, t, y: losses.kl_to(torch.softmax(t.float() / 4, -1), s, 4.0),
    "kd": lambda s, t, y: losses.kd(s, t, 4.0),
    "kd, τ 1": lambda s, t, y: losses.kd(s, t, 1.0),
    "dkd": lambda s, t, y: losses.dkd(s, t, y, alpha=1, beta=8, temperature=4.0),
    "entropy": lambda s, t, y: losses.entropy(s),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 3, 100])
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_values_and_gradients_are_finite_and_right_at_huge_logits(
    name: str, classes: int, dtype: torch.dtype
) -> None:
    y = torch.arange(classes)
    for student, teacher in ((0, 0), (0, 1), (1, 0), (classes - 1, 0)):
        s = extreme(classes, student).to(dtype).requires_grad_()
        t = extreme(classes, teacher).to(dtype)
        value = LOGIT_LOSSES[name](s, t, y)
        (gradient,) = torch.autograd.grad(value.sum(), s)
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        exact = LOGIT_LOSSES[name](s.detach().double(), t.double(), y)
        torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_anything_is_computed(dtype: torch.dtype) -> None:
    s, t = normal(4, 10).to(dtype), normal(4, 10, seed=1).to(dtype)
    maps = normal(2, 3, 4, 4).to(dtype), normal(2, 3, 4, 4, seed=1).to(dtype)
    y = labels(4, 10)
    for half, whole in (
        (losses.kd(s, t, 4.0), losses.kd(s.float(), t.float(), 4.0)),
        (losses.cross_entropy(s, y), losses.cross_entropy(s.float(), y)),
        (losses.entropy(s), losses.entropy(s.float())),
        (losses.hint(s, t), losses.hint(s.float(), t.float())),
        (losses.gaussian_rate(s, t), losses.gaussian_rate(s.float(), t.float())),
        (losses.attention_transfer(*maps), losses.attention_transfer(*(m.float() for m in maps))),
        (
            losses.dkd(s, t, y, alpha=1, beta=8, temperature=4.0),
            losses.dkd(s.float(), t.float(), y, alpha=1, beta=8, temperature=4.0),
        ),
    ):
        assert half.dtype == torch.float32
        assert torch.equal(half, whole)


def test_a_column_and_its_gradient_are_those_of_gather() -> None:
    x_BC = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    index_B1, grad_B1 = torch.tensor([[0], [6], [3], [3], [1]]), torch.randn(5, 1).double()
    ours, theirs = losses.column(x_BC, index_B1), x_BC.gather(1, index_B1)
    assert torch.equal(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, x_BC, grad_B1)
    assert torch.equal(gradient, torch.autograd.grad(theirs, x_BC, grad_B1)[0])
