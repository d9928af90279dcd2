"""The losses of the field as pure functions: one value per example, no hidden mean.

Shapes: B examples, C classes, D features, HW a feature map. All arithmetic is done in float32
or wider: half-precision inputs are raised to float32, float64 stays. Values and gradients are
finite for logits up to 1e4 in size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """float32 or wider."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def cross_entropy(logits_BC: Tensor, target_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """-Σ_c y_c log p_c with y smoothed to (1-s)·onehot + s/C (Szegedy et al. 2016). Shape B."""
    return F.cross_entropy(wide(logits_BC), target_B, reduction="none", label_smoothing=smoothing)


def kl_to(probs_BC: Tensor, logits_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """τ²·KL(q ‖ SM(s/τ)) for target probabilities q at that temperature. Shape B.

    The entropy of q is included, so the value is 0 where they agree.
    """
    log_p = F.log_softmax(wide(logits_BC) / temperature, dim=-1)
    return F.kl_div(log_p, wide(probs_BC), reduction="none").sum(-1) * temperature**2


def kd(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """τ²·KL(SM(t/τ) ‖ SM(s/τ)), Hinton, Vinyals, Dean 2015 (arXiv 1503.02531). Shape B, nats·τ²."""
    log_p = F.log_softmax(wide(student_BC) / temperature, dim=-1)
    log_q = F.log_softmax(wide(teacher_BC) / temperature, dim=-1)
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1) * temperature**2


class _Column(torch.autograd.Function):
    """A value of each row, by its index [B, 1]: torch would add its gradient up, for which
    repeatable kernels sort."""

    @staticmethod
    def forward(ctx: Any, x_BC: Tensor, index_B1: Tensor) -> Tensor:
        ctx.save_for_backward(index_B1)
        ctx.columns = x_BC.shape[1]
        return x_BC.gather(1, index_B1)

    @staticmethod
    def backward(ctx: Any, grad_B1: Tensor) -> tuple[Tensor, None]:
        (index_B1,) = ctx.saved_tensors
        column_C = torch.arange(ctx.columns, device=index_B1.device)
        return torch.where(column_C == index_B1, grad_B1, 0), None


def column(x_BC: Tensor, index_B1: Tensor) -> Tensor:
    """A value of each row, by its index. Shapes [B, C], [B, 1] int64, [B, 1]."""
    return _Column.apply(x_BC, index_B1)


class _Apart(torch.autograd.Function):
    """The logit of the target [B, 1] and those of all other classes [B, C - 1].

    By index: what a boolean mask selects has a size for which the host waits for a GPU. With a
    gradient that is read by index too: torch would add it up, for which repeatable kernels sort.
    """

    @staticmethod
    def forward(ctx: Any, z_BC: Tensor, target_B1: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(target_B1)
        others_R = torch.arange(z_BC.shape[1] - 1, device=z_BC.device)
        others_BR = others_R + (others_R >= target_B1)
        return z_BC.gather(1, target_B1), z_BC.gather(1, others_BR)

    @staticmethod
    def backward(ctx: Any, target: Tensor, rest_BR: Tensor) -> tuple[Tensor, None]:
        (target_B1,) = ctx.saved_tensors
        class_C = torch.arange(rest_BR.shape[1] + 1, device=rest_BR.device)
        place_BC = (class_C - (class_C > target_B1).long()).clamp(max=rest_BR.shape[1] - 1)
        return torch.where(class_C == target_B1, target, rest_BR.gather(1, place_BC)), None


def dkd(
    student_BC: Tensor,
    teacher_BC: Tensor,
    target_B: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Tensor:
    """α·TCKD + β·NCKD of decoupled distillation (Zhao et al. 2022, arXiv 2203.08679). Shape B.

    TCKD = τ²·KL between the (target, rest) pairs; NCKD = τ²·KL between the distributions over
    the non-target classes. Written with logsumexp over the rest, so no class is masked with a
    finite number and no log is taken of a sum of underflowed probabilities.
    """
    s, t = wide(student_BC) / temperature, wide(teacher_BC) / temperature

    def pair_and_rest(z_BC: Tensor) -> tuple[Tensor, Tensor]:
        target, rest_BR = _Apart.apply(z_BC, target_B[:, None])
        pair = torch.cat([target, rest_BR.logsumexp(1, keepdim=True)], dim=1)
        return F.log_softmax(pair, dim=1), F.log_softmax(rest_BR, dim=1)

    (s_pair, s_rest), (t_pair, t_rest) = pair_and_rest(s), pair_and_rest(t)
    tckd = F.kl_div(s_pair, t_pair, reduction="none", log_target=True).sum(1)
    nckd = F.kl_div(s_rest, t_rest, reduction="none", log_target=True).sum(1)
    return (alpha * tckd + beta * nckd) * temperature**2


def standardised(logits_BC: Tensor) -> Tensor:
    """(z - mean_c z) / (std_c z + 1e-7), Sun et al. 2024 (arXiv 2403.01427). Shape [B, C].

    The standard deviation divides by C - 1, as in the authors' code; the paper writes C.
    """
    z = wide(logits_BC)
    return (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True) + 1e-7)


def pearson_distance(a_RX: Tensor, b_RX: Tensor) -> Tensor:
    """1 - Pearson's correlation of each pair of rows, as in Huang et al. 2022 (arXiv 2205.10536).
    Shape R; 1 where a row is constant."""
    a, b = (wide(x) - wide(x).mean(-1, keepdim=True) for x in (a_RX, b_RX))
    return 1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-8)


def noise_contrastive(
    positive_B: Tensor,
    negatives_BK: Tensor,
    images: int,
    eps: float = 1e-7,
    *,
    times_BK: Tensor | None = None,
) -> Tensor:
    """-log D(positive) - Σ_k log(1 - D(negative_k)), D(x) = x / (x + K·Pn + eps), Pn = 1/images.

    x = exp(score/T)/Z. Gutmann and Hyvärinen 2010, as in Tian et al. 2020 (arXiv 1910.10699),
    where 1 - D is K·Pn / (x + K·Pn + eps). `times`: how often each negative was drawn (None:
    once); K is their sum. Shape B.
    """
    once_B1 = positive_B.new_full((len(positive_B), 1), negatives_BK.shape[1])
    drawn_B1 = once_B1 if times_BK is None else times_BK.sum(1, keepdim=True).to(positive_B)
    positive_B1, noise_B1 = positive_B[:, None], drawn_B1 / images
    found_B1 = (positive_B1 / (positive_B1 + noise_B1 + eps)).log()
    refused_BK = (noise_B1 / (negatives_BK + noise_B1 + eps)).log()
    refused_BK = refused_BK if times_BK is None else refused_BK * times_BK
    return -found_B1[:, 0] - refused_BK.sum(1)


def attention_transfer(student_BCHW: Tensor, teacher_BCHW: Tensor, *, p: float = 2) -> Tensor:
    """mean over the map of (Q_s - Q_t)², Q = L2-normalised vec(mean_c |F|^p). Shape B.

    Zagoruyko and Komodakis 2017 (arXiv 1612.03928). Maps of different size are pooled
    (adaptive average) to the smaller one; channels need not agree.
    """
    s, t = wide(student_BCHW), wide(teacher_BCHW)
    size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))

    def attention(f_BCHW: Tensor) -> Tensor:
        if f_BCHW.shape[2:] != size:
            f_BCHW = F.adaptive_avg_pool2d(f_BCHW, size)
        f_BCHW = f_BCHW.abs()  # over its largest value, which drops out, so that no power overflows
        largest_B111 = f_BCHW.detach().amax((1, 2, 3), keepdim=True)
        f_BCHW = f_BCHW / largest_B111.clamp_min(torch.finfo(f_BCHW.dtype).tiny)
        return F.normalize(f_BCHW.pow(p).mean(1).flatten(1), dim=1)

    return (attention(s) - attention(t)).square().mean(1)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over all but the first axis (Romero et al. 2015, arXiv 1412.6550)."""
    return (wide(student) - wide(teacher)).square().flatten(1).mean(1)


def huber(student: Tensor, teacher: Tensor, delta: float = 1.0) -> Tensor:
    """Mean over all but the first axis of ½d² where |d| ≤ δ, else δ(|d| - ½δ) (Huber 1964)."""
    return (
        F.huber_loss(wide(student), wide(teacher), reduction="none", delta=delta).flatten(1).mean(1)
    )


def gaussian_rate(mu_BD: Tensor, logvar_BD: Tensor) -> Tensor:
    """KL(N(μ, e^ℓ) ‖ N(0, I)) = -½ Σ_d (1 + ℓ - μ² - e^ℓ), in nats. Shape B.

    Its mean over a batch is the rate, an upper bound of I(Z; X) (Alemi et al. 2017,
    arXiv 1612.00410).
    """
    mu, logvar = wide(mu_BD), wide(logvar_BD)
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(-1)


def entropy(logits_BC: Tensor) -> Tensor:
    """Entropy of SM(logits) at τ = 1, in nats. Shape B."""
    log_p = F.log_softmax(wide(logits_BC), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)
