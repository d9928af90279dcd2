"""ShuffleNetV1 and the half-width MobileNetV2 of the public tables."""

import torch

from trainers.models import build
from trainers.models.shufflenet_v1 import shuffle


def test_channels_of_the_groups_take_turns() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(shuffle(x, 1), x)


def test_a_unit_of_stride_2_keeps_the_averaged_input() -> None:
    model = build("shufflenet_v1", 10, 32).eval()
    x = torch.rand(2, 24, 8, 8)
    with torch.no_grad():
        found = model.layer1[0](x)
    assert found.shape == (2, 240, 4, 4)
    torch.testing.assert_close(found[:, 216:], torch.nn.functional.avg_pool2d(x, 3, 2, 1))


def test_a_residual_is_added_where_shapes_are_equal() -> None:
    model = build("mobilenet_v2_half", 10, 32).eval()
    first, second = model.groups[2][0], model.groups[2][1]
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        assert torch.equal(second(x), x + second.conv(x))
        assert first(torch.rand(2, 12, 16, 16)).shape == (2, 16, 8, 8)  # no input to add
    assert [len(group) for group in model.groups] == [1, 2, 3, 4, 3, 3, 1]
