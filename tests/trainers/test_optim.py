"""Optimisers against their update formulas."""

import pytest
import torch
from torch import Tensor, nn

from trainers.optim import (
    OptimConfig,
    build_optimiser,
    gradient_step,
    load_optimiser,
    saved_optimiser,
    set_lr,
)


def train_one(config: OptimConfig, steps: int = 4) -> Tensor:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimiser = build_optimiser(config, [weight])
    for i in range(steps):
        optimiser.zero_grad()
        (weight * torch.tensor([1.0, 2.0, -1.0 + i])).sum().backward()
        optimiser.step()
    return weight.detach()


def test_sgd_is_nesterov_with_weight_decay() -> None:
    config = OptimConfig("sgd", lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True)
    w, velocity = torch.tensor([1.0, -2.0, 0.5]), torch.zeros(3)
    for i in range(4):
        gradient = torch.tensor([1.0, 2.0, -1.0 + i]) + 0.01 * w
        velocity = 0.9 * velocity + gradient
        w = w - 0.1 * (gradient + 0.9 * velocity)
    torch.testing.assert_close(train_one(config), w)
    plain = OptimConfig("sgd", lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False)
    torch.testing.assert_close(train_one(plain, 1), torch.tensor([0.9, -2.2, 0.6]))


def test_adamw_decouples_the_weight_decay() -> None:
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    m = v = torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        gradient = torch.tensor([1.0, 2.0, -1.0 + i], dtype=torch.float64)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w * (1 - 0.01 * 0.1)
        unbiased = (m / (1 - 0.9 ** (i + 1)), v / (1 - 0.999 ** (i + 1)))
        w = w - 0.01 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
    found = train_one(OptimConfig("adamw", lr=0.01, weight_decay=0.1))
    torch.testing.assert_close(found.double(), w, rtol=1e-5, atol=1e-6)


def test_set_lr_reaches_every_group() -> None:
    a, b = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimiser = torch.optim.SGD([{"params": [a], "lr": 1.0}, {"params": [b]}], lr=2.0)
    set_lr(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_saved_optimiser_is_that_of_any_device(name: str) -> None:
    """On a GPU its learning rate is a tensor, and a CUDA graph can record its steps."""
    weight = nn.Parameter(torch.ones(2))
    optimiser = build_optimiser(OptimConfig(name, lr=0.5), [weight])
    gradient_step(weight.sum(), optimiser)
    plain = saved_optimiser(optimiser)
    assert plain == optimiser.state_dict()
    (group,) = optimiser.param_groups
    group["lr"] = torch.tensor(0.5)
    if "capturable" in group:
        group["capturable"] = True
    assert saved_optimiser(optimiser) == plain
    load_optimiser(optimiser, plain)
    (group,) = optimiser.param_groups
    assert (group["lr"], group.get("capturable", False)) == (0.5, False)


def scaler(growth_interval: int = 2000) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=growth_interval)


CONFIGS = [OptimConfig("adamw", lr=0.1), OptimConfig("sgd", lr=0.1)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_scaled_step_is_the_unscaled_one(config: OptimConfig, clip: float) -> None:
    found = []
    for scale in (None, scaler()):
        weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        optimiser = build_optimiser(config, [weight])
        for factor in (3.0, -0.01):  # above and below the norm that is clipped
            values = gradient_step((factor * weight).sum(), optimiser, scale, clip=clip)
            assert weight.grad is not None
            largest = clip or 10.0
            wanted = torch.full((3,), factor)
            wanted *= min(1.0, largest / float(wanted.norm()))
            torch.testing.assert_close(weight.grad, wanted)
            assert values == ({} if scale is None else {"train/skipped": torch.tensor(0.0)})
        found.append(weight.detach())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_step_with_an_infinite_gradient_is_skipped_and_counted(
    config: OptimConfig, clip: float
) -> None:
    weight, scale = nn.Parameter(torch.tensor([1.0, -2.0])), scaler(growth_interval=2)
    optimiser = build_optimiser(config, [weight])
    seen = []
    for factor in (torch.inf, torch.nan, 1.0, 1.0, 1.0):
        before = weight.detach().clone()
        (skipped,) = gradient_step((factor * weight).sum(), optimiser, scale, clip=clip).values()
        assert torch.equal(weight.detach(), before) is bool(skipped)
        seen.append((float(skipped), scale.get_scale()))
    assert seen == [(1, 512), (1, 256), (0, 256), (0, 512), (0, 512)]


def test_a_scaled_step_that_failed_can_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is whose recording as a CUDA graph fails."""
    weight, scale = nn.Parameter(torch.tensor([1.0, -2.0])), scaler()
    optimiser = build_optimiser(CONFIGS[0], [weight])
    gradient_step(weight.sum(), optimiser, scale, clip=1.0)

    def fail(*arguments: object) -> None:
        raise RuntimeError("not while capturing")

    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", fail)
        with pytest.raises(RuntimeError, match="capturing"):
            gradient_step(weight.sum(), optimiser, scale, clip=1.0)
    gradient_step(weight.sum(), optimiser, scale, clip=1.0)
    assert optimiser.state[weight]["step"] == 2
