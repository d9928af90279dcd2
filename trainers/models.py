"""Students and teachers by name, and one way to read logits, pooled features and maps.

Shapes: B examples, C classes, D pooled width, H W a feature map.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from trainers.cifar_nets import RESNETS, CifarResNet

TIMM_PREFIX = "timm:"

# d_tok of method.md: narrow students get narrow tokens (and a fusion module that costs little).
TOKEN_DIM, SMALL_TOKEN_DIM = 512, 256
_WIDE_ENOUGH = 1280  # pooled width above which a student gets the full token width


class Outputs(NamedTuple):
    """logits [B, C], pooled features [B, D], feature maps (empty unless asked for)."""

    logits: Tensor
    pooled: Tensor
    maps: tuple[Tensor, ...] = ()


class UnknownModel(ValueError):
    """The name is neither in the registry nor one of timm's."""


def names() -> tuple[str, ...]:
    """The names that `build` knows beside `timm:<name>`."""
    return tuple(sorted(RESNETS))


def build(
    name: str, num_classes: int, image_size: int, pretrained: bool = False, *, in_chans: int = 3
) -> nn.Module:
    """A classifier for square images of `image_size` pixels.

    Raises:
        UnknownModel: nothing of that name.
        ValueError: `pretrained` for a net that has no published weights.
    """
    if name in RESNETS:
        if pretrained:
            raise ValueError(f"{name} has no pretrained weights: set pretrained=false")
        depth, widths = RESNETS[name]
        return CifarResNet(depth, widths, num_classes, in_chans)
    if exists(name):
        import timm  # takes seconds to import: only where it is used

        plain = name.removeprefix(TIMM_PREFIX)
        return timm.create_model(
            plain, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans
        )
    raise UnknownModel(f"no model named {name!r}")


def exists(name: str) -> bool:
    """Whether `build` knows the name."""
    if not name.startswith(TIMM_PREFIX):
        return name in RESNETS
    import timm

    return bool(timm.is_model(name.removeprefix(TIMM_PREFIX)))


def place(model: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """The model on a device, its weights in a memory format."""
    moved: nn.Module = cast(Any, model).to(device, memory_format=layout)
    return moved


def outputs(model: nn.Module, images_BCHW: Tensor, *, maps: bool = False) -> Outputs:
    """One forward pass; `maps=True` also gives the feature maps of every block."""
    net, found = cast(Any, model), ()
    if maps:
        final, intermediates = net.forward_intermediates(images_BCHW)
        found = tuple(intermediates)
    else:
        final = net.forward_features(images_BCHW)
    pooled = net.forward_head(final, pre_logits=True)
    return Outputs(net.get_classifier()(pooled), pooled, found)


def pooled_dim(model: nn.Module) -> int:
    """Width D of the pooled features (timm's `head_hidden_size` where it differs)."""
    net = cast(Any, model)
    return int(getattr(net, "head_hidden_size", None) or net.num_features)


def known_width(name: str) -> int | None:
    """Pooled width of a net of the registry; None where it takes building it to know."""
    return RESNETS[name][1][3] if name in RESNETS else None


def default_token_dim(student_dim: int) -> int:
    """Token width of the fusion module for a student of that pooled width."""
    return TOKEN_DIM if student_dim > _WIDE_ENOUGH else SMALL_TOKEN_DIM


def block_parameters(model: nn.Module) -> list[list[str]]:
    """Names of the parameters of each ordered block: stem, groups, head."""
    if isinstance(model, CifarResNet):
        prefixes = model.block_names()
        names = [n for n, _ in model.named_parameters()]
        return [[n for n in names if n.split(".")[0] in group] for group in prefixes]
    from timm.models import group_parameters

    groups = group_parameters(model, cast(Any, model).group_matcher(coarse=True))
    return [list(groups[key]) for key in sorted(groups)]
