"""Every network is tried before training: it runs on images of the size, or the sizes are named."""

from __future__ import annotations

import pytest
import torch

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
def test_every_family_of_timm_works_or_is_refused_with_the_sizes_that_work() -> None:
    import timm

    families: dict[str, str] = {}
    for name in sorted(timm.list_models(), key=len, reverse=True):  # the shortest name of each
        families[timm.models._registry._model_to_module[name]] = name
    assert len(families) > 80
    for name in families.values():
        for size in (8, 16, 32, 64):
            for channels in (1, 3):
                found = models.trial(f"timm:{name}", 10, size, channels)
                assert bool(found.weights) != bool(found.fault)
                refused = "it takes" in found.fault or "choose another" in found.fault
                assert refused or not found.fault, found.fault


def test_the_sizes_that_work_are_named() -> None:
    fault = models.trial("timm:vit_tiny_patch16_224", 10, 8, 3).fault
    assert "cannot be run on images of 8 pixels, 3 channels" in fault
    assert "it takes 16, 24, 32" in fault


def test_a_network_without_one_classifier_is_refused() -> None:
    fault = models.trial("timm:deit_tiny_distilled_patch16_224", 10, 224, 3).fault
    assert "choose another" in fault
