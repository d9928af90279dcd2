"""VGG nets for CIFAR."""

import pytest
import torch
from torch import nn

from trainers.models import build


@pytest.mark.parametrize(("name", "convolutions"), [("vgg8", 5), ("vgg13", 10)])
def test_depth_and_maps(name: str, convolutions: int) -> None:
    for size, sides in ((32, [32, 16, 8, 4, 4]), (64, [64, 32, 16, 8, 4])):
        model = build(name, 10, size).eval()
        found = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert len(found) == convolutions
        x = torch.randn(1, 3, size, size)
        with torch.no_grad():
            final, maps = model.forward_intermediates(x)
            again = model.blocks[1](nn.functional.max_pool2d(maps[0], 2))
        assert [m.shape[-1] for m in maps] == sides
        assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512]
        assert all((m >= 0).all() for m in maps)  # after ReLU
        assert torch.equal(final, maps[-1])
        torch.testing.assert_close(again, maps[1])


def test_initial_weights_are_those_of_the_literature() -> None:
    torch.manual_seed(0)
    model = build("vgg13", 100, 32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
            found, expected = (
                float(module.weight.detach().std()),
                (2 / (9 * module.out_channels)) ** 0.5,
            )
            assert found == pytest.approx(expected, rel=0.1)
    assert float(model.fc.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not model.fc.bias.any()
