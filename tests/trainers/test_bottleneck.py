"""The fusion module: adapters, IB_MBM, synergy head.

Shapes: B examples, K teachers, Q query width, T token width, D latent width, C classes.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.bottleneck import IBMBM, Adapter, SynergyHead
from trainers.methods.asib.config import AsibConfig
from trainers.methods.asib.method import Asib
from trainers.methods.base import Dims, StepPosition
from trainers.models import Outputs
from trainers.rng import seeded

B, Q, T, D = 6, 5, 7, 8
LEARNING = StepPosition(epoch=7, total=8, stage=0, in_step=7, step_total=8)


def module(seed: int = 0, **options: object) -> IBMBM:
    with seeded(seed, "fusion"):
        return IBMBM(Q, T, D, **({"heads": 2} | options)).double()


def inputs(teachers: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return (
        torch.randn(B, Q, generator=draw, dtype=torch.float64),
        torch.randn(B, teachers, T, generator=draw, dtype=torch.float64),
    )


def slow_latent(net: IBMBM, query_Q: Tensor, tokens_KT: Tensor) -> Tensor:
    """y of one example: attention written out per head and per token."""

    def normal(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        deviation = torch.sqrt(x.var(unbiased=False) + layer.eps)
        return (x - x.mean()) / deviation * layer.weight + layer.bias

    attention = net.attention
    q = normal(net.query_norm, net.query_in.weight @ query_Q + net.query_in.bias)
    kv = [normal(net.token_norm, net.token_in.weight @ t + net.token_in.bias) for t in tokens_KT]
    weight_q, weight_k, weight_v = attention.in_proj_weight.chunk(3)
    bias_q, bias_k, bias_v = attention.in_proj_bias.chunk(3)
    read = []
    for head in range(attention.num_heads):
        part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        ask = (weight_q @ q + bias_q)[part]
        keys = [(weight_k @ token + bias_k)[part] for token in kv]
        values = [(weight_v @ token + bias_v)[part] for token in kv]
        powers = [torch.exp(ask @ key / math.sqrt(attention.head_dim)) for key in keys]
        read.append(sum(p * v for p, v in zip(powers, values, strict=True)) / sum(powers))
    u = attention.out_proj.weight @ torch.cat(read) + attention.out_proj.bias
    return normal(net.out_norm, u + q)


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_mean_and_log_variance_are_the_formula(teachers: int, heads: int) -> None:
    net = module(heads=heads).eval()
    query, tokens = inputs(teachers)
    z, mu, logvar = net(query, tokens)
    assert z.shape == mu.shape == logvar.shape == (B, D)
    for b in range(B):
        y = slow_latent(net, query[b], tokens[b])
        want_logvar = (net.to_logvar.weight @ y + net.to_logvar.bias).clamp(-4, 4)
        close = {"rtol": 1e-10, "atol": 1e-10}
        torch.testing.assert_close(mu[b], net.to_mu.weight @ y + net.to_mu.bias, **close)
        torch.testing.assert_close(logvar[b], want_logvar, **close)


def test_evaluation_gives_the_mean_and_training_a_sample() -> None:
    net, (query, tokens) = module(), inputs(2)
    net.eval()
    assert torch.equal(net(query, tokens).z, net(query, tokens).mu)
    torch.manual_seed(1)
    sampled = net(query, tokens, sample=True)
    torch.manual_seed(1)
    noise = torch.randn(B, D, dtype=torch.float64)
    want = sampled.mu + torch.exp(sampled.logvar / 2) * noise
    torch.testing.assert_close(sampled.z, want, rtol=1e-12, atol=1e-12)
    net.train()
    torch.manual_seed(1)
    assert torch.equal(net(query, tokens).z, sampled.z)
    assert torch.equal(net(query, tokens, sample=False).z, sampled.mu)
    assert not torch.equal(net(query, tokens).z, net(query, tokens).z)


@pytest.mark.parametrize(
    ("bias", "clip", "min_std", "want"),
    [
        (50.0, 4.0, 0.01, 4.0),
        (-50.0, 4.0, 0.01, -4.0),
        (-50.0, 4.0, 0.5, 2 * math.log(0.5)),
        (-50.0, 20.0, 0.01, 2 * math.log(0.01)),
        (50.0, 1.5, 0.01, 1.5),
    ],
)
def test_log_variance_is_clipped_and_sigma_floored(
    bias: float, clip: float, min_std: float, want: float
) -> None:
    net = module(logvar_clip=clip, min_std=min_std)
    nn.init.constant_(net.to_logvar.bias, bias)
    nn.init.zeros_(net.to_logvar.weight)
    torch.manual_seed(0)
    z, mu, logvar = net(*inputs(2))
    torch.testing.assert_close(logvar, torch.full_like(logvar, want))
    torch.manual_seed(0)
    noise = torch.randn(B, D, dtype=torch.float64)
    torch.testing.assert_close((z - mu) / noise, torch.full_like(z, math.exp(want / 2)))
    assert math.exp(want / 2) >= min_std * (1 - 1e-12)


def test_latent_width_must_be_a_multiple_of_the_heads() -> None:
    with pytest.raises(ValueError, match="latent_dim 10 is not a multiple of heads 4"):
        IBMBM(Q, T, 10, heads=4)


def test_without_a_bottleneck_there_is_no_log_variance_and_nothing_is_drawn() -> None:
    net = module(stochastic=False).train()
    z, mu, logvar = net(*inputs(2), sample=True)
    assert logvar is None
    assert torch.equal(z, mu)
    assert not any("logvar" in name for name, _ in net.named_parameters())


def test_half_precision_inputs_give_a_float32_latent() -> None:
    net = module().bfloat16()
    query, tokens = (x.bfloat16() for x in inputs(2))
    latent = net(query, tokens, sample=True)
    assert {x.dtype for x in latent} == {torch.float32}


@pytest.mark.parametrize(("width", "out", "hidden"), [(64, 16, 32), (16, 32, 32), (6, 3, 3)])
def test_adapter_is_two_layers_with_a_hidden_width_of_half_the_input(
    width: int, out: int, hidden: int
) -> None:
    adapter = Adapter(width, out)
    assert adapter[0].weight.shape == (hidden, width)
    x = torch.randn(4, width)
    relu = (x @ adapter[0].weight.T + adapter[0].bias).clamp(min=0)
    want = relu @ adapter[2].weight.T + adapter[2].bias
    torch.testing.assert_close(adapter(x), want, rtol=1e-5, atol=1e-6)


def test_synergy_head_is_the_formula_and_drops_out_in_training_only() -> None:
    head = SynergyHead(D, 3, dropout=0.5).double()
    x = inputs(2)[1][:, 0, :1] * torch.arange(1.0, D + 1, dtype=torch.float64)
    norm, linear = head.layers[0], head.layers[-1]
    y = F.layer_norm(x, (D,), norm.weight, norm.bias, norm.eps)
    gelu = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    want = gelu @ linear.weight.T + linear.bias
    torch.testing.assert_close(head.eval()(x), want, rtol=1e-10, atol=1e-10)
    assert not torch.equal(head.train()(x), head(x))


# Through the method --------------------------------------------------------------------------


def method(teachers: int = 2, **options: object) -> Asib:
    given = {"token_dim": 8, "heads": 2, "ib_beta": 0.0, "dropout": 0.0} | options
    with seeded(0, "method"):
        return Asib(AsibConfig(**given), Dims(Q, (T,) * teachers, 4)).double()


def outputs(teachers: int = 2) -> tuple[Outputs, list[Outputs], Tensor]:
    draw = torch.Generator().manual_seed(4)

    def one(width: int) -> Outputs:
        return Outputs(
            torch.randn(B, 4, generator=draw, dtype=torch.float64),
            torch.randn(B, width, generator=draw, dtype=torch.float64),
        )

    return one(Q), [one(T) for _ in range(teachers)], torch.arange(B) % 4


def gradient_of_log_variance(sample: bool) -> Tensor:
    """∂L_A/∂W_ℓ where the cross-entropy alone counts (β = 0, stage 1, fixed teachers)."""
    net = method(a_step_sample=sample).train()
    student, teachers, y = outputs()
    torch.manual_seed(0)
    terms = net.teacher_terms(student, teachers, None, y, LEARNING).losses
    assert terms.keys() == {"ce", "rate"}
    assert terms["rate"].item() == 0.0
    sum(terms.values()).backward()
    return net.fusion.to_logvar.weight.grad


def test_the_cross_entropy_reaches_the_log_variance_through_the_sample() -> None:
    assert gradient_of_log_variance(sample=True).abs().max() > 1e-6


def test_the_collapsed_form_leaves_the_log_variance_without_gradient() -> None:
    assert torch.equal(
        gradient_of_log_variance(sample=False), torch.zeros(D, D, dtype=torch.float64)
    )


@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_every_adapter_gets_a_gradient_for_any_number_of_teachers(teachers: int) -> None:
    net = method(teachers).train()
    student, taught, y = outputs(teachers)
    sum(net.teacher_terms(student, taught, None, y, LEARNING).losses.values()).backward()
    assert len(net.teacher_adapters) == teachers
    for adapter in (net.query_adapter, *net.teacher_adapters):
        assert adapter[2].weight.grad.abs().max() > 1e-9


@pytest.mark.parametrize("teachers", [2, 5])
def test_the_order_of_teachers_with_equal_adapters_does_not_matter(teachers: int) -> None:
    net = method(teachers).eval()
    for adapter in net.teacher_adapters:
        adapter.load_state_dict(net.teacher_adapters[0].state_dict())
    student, taught, _ = outputs(teachers)
    pooled = [t.pooled for t in taught]
    straight, turned = net.fuse(student.pooled, pooled), net.fuse(student.pooled, pooled[::-1])
    for one, other in zip(straight, turned, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    other = net.fuse(student.pooled, [pooled[0]] * teachers)
    assert (other.mu - straight.mu).abs().max() > 1e-3
