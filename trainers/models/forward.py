"""One way to read any network: logits, pooled features and feature maps of one forward pass.

Shapes: B examples, C classes, D pooled width, H W a feature map.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn


class Outputs(NamedTuple):
    """logits [B, C], pooled features [B, D], feature maps (empty unless requested)."""

    logits: Tensor
    pooled: Tensor
    maps: tuple[Tensor, ...] = ()


def outputs(model: nn.Module, images_BCHW: Tensor, *, maps: bool = False) -> Outputs:
    """One forward pass; `maps=True` also gives the feature maps of every block."""
    net, found = cast(Any, model), ()
    if maps:
        final, intermediates = net.forward_intermediates(images_BCHW)
        found = tuple(intermediates)
    else:
        final = net.forward_features(images_BCHW)
    pooled = net.forward_head(final, pre_logits=True)
    return Outputs(classify(model, pooled), pooled, found)


@torch.no_grad()
def map_shapes(
    model: nn.Module, image_CHW: tuple[int, int, int]
) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of every feature map that `outputs` gives for images of that shape, in evaluation
    mode (restored)."""
    was_training, first = model.training, next(model.parameters())
    model.eval()
    maps = outputs(model, torch.zeros(2, *image_CHW).to(first), maps=True).maps
    model.train(was_training)
    return tuple((m.shape[1], m.shape[2], m.shape[3]) for m in maps)


def classify(model: nn.Module, pooled_BD: Tensor) -> Tensor:
    """The classifier alone: logits [B, C] of pooled features. Some of timm's classifiers are 1×1
    convolutions (DLA, DPN)."""
    classifier = cast(Any, model).get_classifier()
    if isinstance(classifier, nn.Conv2d):
        return cast(Tensor, classifier(pooled_BD[:, :, None, None]).flatten(1))
    return cast(Tensor, classifier(pooled_BD))


def pooled_dim(model: nn.Module) -> int:
    """Width D of the pooled features (timm's `head_hidden_size` where it differs)."""
    net = cast(Any, model)
    return int(getattr(net, "head_hidden_size", None) or net.num_features)
