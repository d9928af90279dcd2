"""Every network is tried before training: it runs on images of the size, or the sizes are named."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from benchmarks import families
from trainers import models


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("resnet20", 16, 1),
        ("vgg8", 8, 3),
        ("timm:resnet18", 32, 3),
        ("timm:vit_tiny_patch16_224", 16, 1),  # of a fixed size, made for that of the images
        ("timm:swin_tiny_patch4_window7_224", 32, 3),
    ],
)
def test_a_network_that_runs_has_no_fault(name: str, size: int, channels: int) -> None:
    before = torch.random.get_rng_state()
    found = models.trial(name, 7, size, channels)
    assert found.fault == ""
    assert torch.equal(before, torch.random.get_rng_state())
    built = models.build(name, 7, size, in_chans=channels).state_dict()
    assert {k: v.shape for k, v in found.weights.items()} == {k: v.shape for k, v in built.items()}


@pytest.mark.by_hand
@pytest.mark.parametrize("family", families.read(), ids=lambda family: family.network)
def test_a_family_of_timm_works_at_the_sizes_of_the_page_and_no_other(
    family: families.Family,
) -> None:
    assert families.tried(family.name, family.network) == family
    for size in set(families.SIZES) - set(family.plain):
        fault = models.trial(f"timm:{family.network}", 10, size, 3).fault
        assert "it takes" in fault or "choose another" in fault
    if 32 in family.plain:  # a step with values does what the one without them promised
        net = models.build(f"timm:{family.network}", 10, 32).train()
        models.outputs(net, torch.rand(2, 3, 32, 32)).logits.sum().backward()


def test_the_page_has_every_family_of_timm() -> None:
    assert [family.name for family in families.read()] == list(families.families())


def test_feature_maps_are_tried_where_a_method_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(net: nn.Module, images_BCHW: Tensor, *, maps: bool = False) -> models.Outputs:
        found = models.outputs(net, images_BCHW)
        return found._replace(maps=(found.pooled,)) if maps else found

    monkeypatch.setattr(sys.modules["trainers.models.trial"], "outputs", flat)
    assert models.trial("resnet8", 11, 16, 1).fault == ""
    fault = models.trial("resnet8", 11, 16, 1, maps=True).fault
    assert "16 pixels, 1 channels with the feature maps that this method reads" in fault
    assert "(2, 64)" in fault


def test_a_step_in_training_mode_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.Module, images_BCHW: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("only for inference")
        return images_BCHW

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)
    assert "(only for inference)" in models.trial("resnet8", 12, 16, 1).fault


def test_networks_that_name_no_blocks_or_have_a_convolution_as_classifier() -> None:
    assert models.trial("timm:poolformerv2_s12", 7, 32, 3).fault == ""
    assert models.trial("timm:dpn48b", 7, 32, 3).fault == ""
    with torch.device("meta"):
        net = models.build("timm:poolformerv2_s12", 7, 32)
    trunk, head = models.block_parameters(net)
    assert set(head) == {"head.fc.weight", "head.fc.bias"}
    assert len(trunk) + len(head) == len(list(net.parameters()))


@pytest.mark.thorough
def test_the_sizes_that_work_are_named() -> None:
    fault = models.trial("timm:vit_tiny_patch16_224", 10, 8, 3).fault
    assert "cannot be run on images of 8 pixels, 3 channels" in fault
    assert "it takes 16, 24, 32" in fault


def test_a_second_classifier_would_be_left_out_in_silence() -> None:
    fault = models.trial("timm:volo_d1_224", 10, 32, 3).fault
    assert "its aux_head.weight would not be used" in fault
    assert "choose another" in fault


def test_a_network_without_one_classifier_is_refused() -> None:
    fault = models.trial("timm:deit_tiny_distilled_patch16_224", 10, 224, 3).fault
    assert "choose another" in fault
