"""Wide residual nets for CIFAR."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainers.models import build


@pytest.mark.parametrize(("name", "depth"), [("wrn_16_2", 16), ("wrn_40_2", 40)])
def test_a_network_of_depth_n_has_n_layers(name: str, depth: int) -> None:
    kernels = [m.kernel_size for m in build(name, 10, 32).modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == depth - 3  # the literature counts head and projections too
    assert kernels.count((1, 1)) == 3


def test_a_block_normalises_before_it_convolves() -> None:
    torch.manual_seed(0)
    model = build("wrn_16_2", 10, 32).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(maps[0], model.conv1(x))
        first, second = model.block1[0], model.block1[1]
        active = F.relu(first.bn1(maps[0]))
        inner = first.conv2(F.relu(first.bn2(first.conv1(active))))
        y = first.shortcut(active) + inner
        inner = second.conv2(F.relu(second.bn2(second.conv1(F.relu(second.bn1(y))))))
        torch.testing.assert_close(maps[1], y + inner)  # the plain input where widths are equal
        torch.testing.assert_close(final, F.relu(model.bn1(model.block3(maps[2]))))
    assert [m.shape[1:] for m in maps] == [(16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert torch.equal(final, maps[-1])
