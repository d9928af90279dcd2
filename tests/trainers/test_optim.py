"""Optimisers against their update formulas."""

import torch
from torch import Tensor, nn

from trainers.optim import OptimConfig, build_optimiser, set_lr


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
