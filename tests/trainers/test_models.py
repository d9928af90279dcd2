"""Networks by name, and the one way to read them."""

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from trainers import models
from trainers.models import UnknownModel, build, outputs
from trainers.streams import seeded

# Parameters for 100 classes and 3 channels, as the public tables' code counts them.
PUBLISHED = {"resnet20": 278_324, "resnet56": 861_620, "resnet8x4": 1_233_540,
             "resnet32x4": 7_433_860}  # fmt: skip
WIDTH = {"resnet8": 64, "resnet20": 64, "resnet56": 64, "resnet8x4": 256, "resnet32x4": 256}
CONVOLUTIONS = {"resnet8": 7, "resnet20": 19, "resnet56": 55, "resnet8x4": 7, "resnet32x4": 31}


def test_every_registered_name_is_in_these_tests() -> None:
    assert set(models.names()) == set(WIDTH)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert sum(p.numel() for p in build(name, 100, 32).parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", WIDTH)
def test_a_network_of_depth_n_has_n_layers(name: str) -> None:
    kernels = [m.kernel_size for m in build(name, 10, 32).modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == CONVOLUTIONS[name]
    assert len(kernels) - kernels.count((3, 3)) <= 3  # projections of the shortcuts


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (16, 1), (28, 1)])
@pytest.mark.parametrize("name", WIDTH)
def test_outputs_are_the_forward_pass_and_what_led_to_it(
    name: str, size: int, channels: int
) -> None:
    model = build(name, 10, size, in_chans=channels).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        plain, full, logits = outputs(model, x), outputs(model, x, maps=True), model(x)
    torch.testing.assert_close(plain.logits, logits)
    assert plain.maps == ()
    assert plain.pooled.shape == (2, WIDTH[name])
    assert models.pooled_dim(model) == models.known_width(name) == WIDTH[name]
    sizes = [size, size, -(-size // 2), -(-size // 4)]
    assert [m.shape[2:] for m in full.maps] == [(s, s) for s in sizes]
    torch.testing.assert_close(full.maps[-1].mean((2, 3)), plain.pooled)
    torch.testing.assert_close(model.get_classifier()(plain.pooled), logits)
    torch.testing.assert_close(model.forward_head(full.maps[-1]), logits)
    assert size < 32 or sizes[-1] >= 4


def test_maps_are_not_overwritten_by_later_layers() -> None:
    model = build("resnet8", 10, 16, in_chans=1).eval()
    x = torch.randn(2, 1, 16, 16)
    kept = x.clone()
    with torch.no_grad():
        maps = outputs(model, x, maps=True).maps
        again = model.layer1(maps[0])
    assert torch.equal(x, kept)
    torch.testing.assert_close(again, maps[1])


def test_first_weights_are_a_function_of_the_stream() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        with seeded(seed, "student"):
            return build("resnet8", 10, 16).state_dict()

    assert tiny.differences(weights(0), weights(0)) == []
    assert "/conv1.weight" in tiny.differences(weights(0), weights(1))


@pytest.mark.parametrize("name", ["", "resnet9", "timm:", "timm:no_such_net", "convnext_small"])
def test_an_unknown_name_is_an_error(name: str) -> None:
    assert not models.exists(name)
    with pytest.raises(UnknownModel, match="no model named"):
        build(name, 10, 32)


def test_nets_without_published_weights_say_so() -> None:
    with pytest.raises(ValueError, match="pretrained=false"):
        build("resnet8", 10, 32, pretrained=True)


def test_nets_of_timm_speak_the_same_protocol() -> None:
    model = build("timm:resnet10t", 7, 32, in_chans=1).eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        found, logits = outputs(model, x), model(x)
    torch.testing.assert_close(found.logits, logits)
    assert found.pooled.shape == (2, models.pooled_dim(model))
    assert models.known_width("timm:resnet10t") is None
    blocks = models.block_parameters(model)
    assert sorted(n for block in blocks for n in block) == sorted(
        n for n, _ in model.named_parameters()
    )
    assert blocks[-1] == ["fc.weight", "fc.bias"]
    assert blocks[0][0].startswith("conv1")


# Pooled widths: shufflenet_v2 1024, mobilenet_v2 and efficientnet_b0 1280, resnet50 2048.
@pytest.mark.parametrize(
    ("width", "token"), [(64, 256), (256, 256), (1024, 256), (1280, 256), (2048, 512)]
)
def test_small_students_get_narrow_tokens(width: int, token: int) -> None:
    assert models.default_token_dim(width) == token


def test_place_moves_weights_to_the_layout_and_changes_none() -> None:
    model = build("resnet8", 10, 16)
    before = tiny.clone(model)
    placed = models.place(model, torch.device("cpu"), torch.channels_last)
    weight = placed.layer2[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert tiny.differences(before, placed.state_dict()) == []
