"""The registered networks that come from timm, and how they read small images.

Made for 224 pixels, they divide the size by 32. Up to 64 pixels only strides change, never a
weight, so that pretrained weights and the names and shapes of all parameters stay:

- ResNet (arXiv 1512.03385): stem stride 1, no max-pool. The 7×7 kernel stays.
- MobileNetV2, EfficientNet (arXiv 1801.04381, 1905.11946): stride 1 in the stem and in the first
  block that had stride 2.
- ConvNeXt (arXiv 2201.03545): the 4×4 patches of the stem overlap (stride 1, padded to the same
  size). Patches of stride 2 would be cheaper but end in a 2×2 map at 32 px.

Each then divides the size by 8: final map 4×4 at 32 px.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from trainers.models.cifar_resnet import SMALL_IMAGE


def _resnet(net: Any) -> None:
    net.conv1.stride, net.maxpool = (1, 1), nn.Identity()


def _efficientnet(net: Any) -> None:
    strided = (m for m in net.blocks.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2))
    net.conv_stem.stride = next(strided).stride = (1, 1)


def _convnext(net: Any) -> None:
    from timm.layers import Conv2dSame

    patches = net.stem[0]
    net.stem[0] = Conv2dSame(patches.in_channels, patches.out_channels, patches.kernel_size)
    net.stem[0].weight, net.stem[0].bias = patches.weight, patches.bias


class TimmNet(NamedTuple):
    """timm's name with the tag of the pretrained weights, pooled width, blocks before the head,
    the change for small images, and the smallest of them in pixels."""

    name: str
    width: int
    blocks: int
    adapt: Callable[[Any], None]
    smallest: int = 4


TIMM_NETS = {
    "resnet50": TimmNet("resnet50.a1_in1k", 2048, 5, _resnet),
    "resnet101": TimmNet("resnet101.a1h_in1k", 2048, 5, _resnet),
    "resnet152": TimmNet("resnet152.a1h_in1k", 2048, 5, _resnet),
    "mobilenet_v2": TimmNet("mobilenetv2_100.ra_in1k", 1280, 8, _efficientnet),
    "efficientnet_b0": TimmNet("efficientnet_b0.ra_in1k", 1280, 8, _efficientnet),
    "efficientnet_b2": TimmNet("efficientnet_b2.ra_in1k", 1408, 8, _efficientnet),
    "efficientnet_l2": TimmNet("tf_efficientnet_l2.ns_jft_in1k", 5504, 8, _efficientnet),
    "convnext_s": TimmNet("convnext_small.in12k_ft_in1k", 768, 5, _convnext, 8),
    "convnext_l": TimmNet("convnext_large.fb_in22k_ft_in1k", 1536, 5, _convnext, 8),
}


def create(
    name: str,
    adapt: Callable[[Any], None] | None,
    num_classes: int,
    in_chans: int,
    image_size: int,
    pretrained: bool,
) -> nn.Module:
    """A model of timm, changed by `adapt` where images are small. A network of a fixed input size
    (a transformer, for example) is made for the size of the images."""
    import timm  # takes seconds to import: only where it is used

    cfg = timm.get_pretrained_cfg(name)
    fixed = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != image_size
    size: dict[str, Any] = {"img_size": image_size} if fixed else {}
    net = timm.create_model(
        name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **size
    )
    if adapt and image_size <= SMALL_IMAGE:
        adapt(net)
    return net


def known(name: str) -> bool:
    """Whether timm has a model of that name, and its tag where one is given."""
    import timm
    from timm.models import get_arch_pretrained_cfgs

    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (
        not tag or name in get_arch_pretrained_cfgs(architecture)
    )


def published(name: str) -> bool:
    """Whether there are pretrained weights of a model that timm has."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and bool(cfg.has_weights)


def own_size(name: str) -> int | None:
    """The image side in pixels that timm made a model for; None where it does not say."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    return None if cfg is None else int(cfg.input_size[-1])
