"""Networks by name, and the one way to read them."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainers import tiny
from trainers import models
from trainers.models import CannotBuild, UnknownModel, build, outputs
from trainers.rng import seeded

# Parameters for 100 classes and 3 channels, as the public tables' code counts them.
PUBLISHED = {
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet110": 1_736_564,
    "wrn_40_1": 569_780,
    "shufflenet_v1": 949_258,
    "mobilenet_v2_half": 812_836,
    "resnet56": 861_620,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
}
# The same, in millions, as printed in papers.
PRINTED = {
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet110": 1.73,
    "wrn_40_1": 0.57,
    "shufflenet_v1": 0.95,
    "mobilenet_v2_half": 0.81,
    "resnet56": 0.86,
    "wrn_16_2": 0.70,
    "wrn_40_2": 2.26,
    "vgg8": 3.97,
    "vgg13": 9.46,
}
WIDTH = {name: 64 for name in ("resnet8", "resnet20", "resnet32", "resnet56", "resnet110")}
WIDTH |= {"resnet8x4": 256, "resnet32x4": 256}
CONVOLUTIONS = {"resnet8": 7, "resnet20": 19, "resnet32": 31, "resnet56": 55, "resnet110": 109}
CONVOLUTIONS |= {"resnet8x4": 7, "resnet32x4": 31}
# Teacher and student of the 13 pairs of Tian et al. 2020 (arXiv 1910.10699).
PAIRS = [
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
    ("vgg13", "mobilenet_v2_half"),
    ("resnet50", "mobilenet_v2_half"),
    ("resnet50", "vgg8"),
    ("resnet32x4", "shufflenet_v1"),
    ("resnet32x4", "shufflenet_v2"),
    ("wrn_40_2", "shufflenet_v1"),
]
# Printed; ours differ in the stem: a 7×7 and a 3×3 kernel where the tables' code has 3×3 and 1×1.
NEARLY = {"resnet50": 23.71, "shufflenet_v2": 1.36}
# Of the others: pooled width, blocks before the head, side of the final map at 32 px.
OTHERS = {
    "convnext_l": (1536, 5, 4),
    "convnext_s": (768, 5, 4),
    "efficientnet_b0": (1280, 8, 4),
    "efficientnet_b2": (1408, 8, 4),
    "efficientnet_l2": (5504, 8, 4),
    "mobilenet_v2": (1280, 8, 4),
    "mobilenet_v2_half": (1280, 5, 2),
    "resnet50": (2048, 5, 4),
    "resnet101": (2048, 5, 4),
    "resnet152": (2048, 5, 4),
    "shufflenet_v1": (960, 4, 4),
    "shufflenet_v2": (1024, 4, 4),
    "vgg8": (512, 5, 4),
    "vgg13": (512, 5, 4),
    "wrn_16_2": (128, 4, 8),
    "wrn_40_1": (64, 4, 8),
    "wrn_40_2": (128, 4, 8),
}
FACTS = {name: (width, 4, 8) for name, width in WIDTH.items()} | OTHERS
HUGE = ("convnext_l", "efficientnet_l2")  # looked at, never run


@cache
def shape_only(name: str, size: int = 32, channels: int = 3) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(name, 100, size, in_chans=channels).eval()


def test_every_registered_name_is_in_these_tests() -> None:
    assert set(models.names()) == set(FACTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    count = sum(p.numel() for p in build(name, 100, 32).parameters())
    assert count == PUBLISHED[name]
    assert count / 1e6 == pytest.approx(PRINTED[name], rel=0.01)


def test_the_networks_of_the_standard_pairs_have_their_size() -> None:
    for name in {name for pair in PAIRS for name in pair}:
        count = sum(p.numel() for p in shape_only(name).parameters()) / 1e6
        assert count == pytest.approx((PRINTED | NEARLY)[name], abs=0.01)


@pytest.mark.parametrize("name", FACTS)
def test_what_is_known_without_building_is_true(name: str) -> None:
    model, (width, blocks, side) = shape_only(name), FACTS[name]
    assert models.known_width(name) == models.pooled_dim(model) == width
    assert models.known_blocks(name) == len(models.block_parameters(model)) - 1 == blocks
    found = outputs(model, torch.empty(2, 3, 32, 32, device="meta"), maps=True)
    assert found.pooled.shape == (2, width)
    assert found.maps[-1].shape[2:] == (side, side)
    assert side >= 4 or name == "mobilenet_v2_half"  # that of the tables has 2
    final = model.forward_features(torch.empty(2, 3, 32, 32, device="meta"))
    assert final.shape[2:] == (side, side)


@pytest.mark.parametrize("name", FACTS)
def test_every_parameter_is_in_one_block_and_the_head_is_the_last(name: str) -> None:
    model = shape_only(name)
    blocks = models.block_parameters(model)
    found = [n for block in blocks for n in block]
    assert sorted(found) == sorted(n for n, _ in model.named_parameters())
    assert all(blocks)
    classifier = {id(p) for p in model.get_classifier().parameters()}
    named = dict(model.named_parameters())
    assert classifier <= {id(named[n]) for n in blocks[-1]}
    assert sum(named[n].numel() for n in blocks[-1]) <= 102 * models.pooled_dim(model) + 100


@pytest.mark.parametrize("name", FACTS)
def test_every_batch_norm_is_in_the_block_of_its_weights(name: str) -> None:
    model = shape_only(name)
    block_of = {n: i for i, block in enumerate(models.block_parameters(model)) for n in block}
    prefixes = {module: prefix for prefix, module in model.named_modules()}
    norms = models.block_norms(model)
    found = [(prefixes[norm], number) for number, block in enumerate(norms) for norm in block]
    assert {prefix: block_of[f"{prefix}.weight"] for prefix, _ in found} == dict(found)
    statistics = {n for n, _ in model.named_buffers() if n.endswith(".running_mean")}
    assert {f"{prefix}.running_mean" for prefix, _ in found} == statistics
    assert len(found) == len(statistics)


RUN = ((16, 1), (32, 3))  # sizes and channels at which networks are run; else only shapes
QUICK = ("shufflenet_v2", "mobilenet_v2", "vgg8", "wrn_16_2", "convnext_s", "resnet50")


def forward_cases() -> Iterator[Any]:
    for name in FACTS:
        for size, channels in (*RUN, (28, 1), (64, 3)) if name not in (*WIDTH, *HUGE) else ():
            quick = (size, channels) != (32, 3) and name in QUICK
            yield pytest.param(name, size, channels, marks=() if quick else pytest.mark.thorough)


@pytest.mark.parametrize(("name", "size", "channels"), forward_cases())
def test_logits_are_those_of_the_forward_pass(name: str, size: int, channels: int) -> None:
    if (size, channels) not in RUN:
        model = shape_only(name, size, channels)
        found = outputs(model, torch.empty(2, channels, size, size, device="meta"), maps=True)
        assert found.logits.shape == (2, 100)
        least = FACTS[name][2] if size >= 32 else size // (32 // FACTS[name][2])
        assert min(found.maps[-1].shape[2:]) >= min(4, least)
        return
    model = build(name, 10, size, in_chans=channels).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        plain, full, logits = outputs(model, x), outputs(model, x, maps=True), model(x)
    torch.testing.assert_close(plain.logits, logits)
    torch.testing.assert_close(full.logits, logits)
    assert plain.pooled.shape == (2, FACTS[name][0])


@pytest.mark.parametrize(("name", "size"), [("vgg8", 7), ("convnext_s", 4), ("resnet50", 3)])
def test_images_too_small_for_the_strides_are_an_error(name: str, size: int) -> None:
    with pytest.raises(CannotBuild, match=f"{name} needs images of at least [48] pixels, not "):
        build(name, 10, size)


def test_images_without_channels_are_an_error() -> None:
    with pytest.raises(CannotBuild, match="at least 1 channel, not 0"):
        build("resnet8", 10, 32, in_chans=0)


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


def test_initial_weights_are_a_function_of_the_stream() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        with seeded(seed, "student"):
            return build("resnet8", 10, 16).state_dict()

    assert tiny.differences(weights(0), weights(0)) == []
    assert "/conv1.weight" in tiny.differences(weights(0), weights(1))


@pytest.mark.parametrize(
    "name",
    ["", "resnet9", "timm:", "timm:no_such_net", "convnext_small", "timm:resnet50.no_such_tag"],
)
def test_an_unknown_name_is_an_error(name: str) -> None:
    assert not models.exists(name)
    with pytest.raises(UnknownModel, match="no model named"):
        build(name, 10, 32)


def test_nets_without_published_weights_are_reported() -> None:
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


def test_place_moves_weights_to_the_layout_and_changes_none() -> None:
    model = build("resnet8", 10, 16)
    before = tiny.clone(model)
    placed = models.place(model, torch.device("cpu"), torch.channels_last)
    weight = placed.layer2[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert tiny.differences(before, placed.state_dict()) == []
