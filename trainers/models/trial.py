"""Trial of a network: built and run once, as in training, on two images of the data set's size.

timm's networks are tried on torch's meta device: shapes without values, so that a large one costs
no memory. The small ones of this project are built quicker than that device is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.models import timm_models
from trainers.models.forward import Outputs, outputs, pooled_dim
from trainers.models.freezing import train_mode
from trainers.models.registry import TIMM_PREFIX, CannotBuild, NoWeights, build, from_timm
from trainers.rng import seeded

OTHER_SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 384, 512)
NO_SIZE = "it works at no usual size: choose another"
_LONGEST = 160  # characters of a library's reason


class Trial(NamedTuple):
    """What a trial found: why the network cannot be used (empty: it can), and otherwise the names,
    shapes and types of its weights, whose values mean nothing, and its pooled width."""

    fault: str
    weights: dict[str, Tensor]
    width: int = 0


@lru_cache(maxsize=32)
def trial(
    name: str,
    classes: int,
    image_size: int,
    channels: int,
    pretrained: bool = False,
    maps: bool = False,
) -> Trial:
    """Build a network that `exists` and run it on two images in evaluation mode and in training
    mode, forward and backward, with its feature `maps` where a method reads them; no random stream
    is changed. `pretrained` weights are fetched as a run would."""

    def tried(size: int) -> tuple[dict[str, Tensor], int]:
        return _run(name, classes, size, channels, maps)

    try:
        weights, width = tried(image_size)
        if pretrained:
            with seeded(0, "trial"):
                build(name, classes, image_size, True, in_chans=channels)
        return Trial("", weights, width)
    except (CannotBuild, NoWeights) as error:
        return Trial(str(error), {})
    except Exception as error:  # noqa: BLE001 - whatever a library's network raises is the answer
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST]
        asked = f"images of {image_size} pixels, {channels} channels"
        asked += " with the feature maps that this method reads" if maps else ""
        way = _ways(tried, image_size, _own_size(name))
        return Trial(f"cannot be run on {asked} ({text}); {way}", {})


def _run(
    name: str, classes: int, size: int, channels: int, maps: bool
) -> tuple[dict[str, Tensor], int]:
    """The weights and the pooled width of a network that runs.

    Raises:
        Exception: it does not, or its outputs are none that can be distilled.
    """
    devices = ("meta", "cpu") if from_timm(name) else ("cpu",)
    for device in devices:
        on: AbstractContextManager[object] = (
            torch.device(device) if device == "meta" else nullcontext()
        )
        try:
            with seeded(0, "trial"), on:
                net = build(name, classes, size, in_chans=channels)
                _check(net, torch.zeros(2, channels, size, size), classes, maps)
            return net.state_dict(), pooled_dim(net)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            # Some networks need values while they are built: they are tried on the CPU.
            if device == "cpu" or isinstance(error, CannotBuild) or "meta" not in str(error):
                raise
    raise AssertionError(name)


def _check(net: nn.Module, images_BCHW: Tensor, classes: int, maps: bool) -> None:
    """One forward pass in evaluation mode, and one step in training mode.

    Raises:
        Exception: the network's own, or ValueError of outputs of another shape.
    """
    with torch.no_grad():
        _check_shapes(outputs(net.eval(), images_BCHW, maps=maps), classes, pooled_dim(net), maps)
    found = outputs(train_mode(net, -1, freeze_bn=True), images_BCHW, maps=maps)
    _check_shapes(found, classes, pooled_dim(net), maps)
    found.logits.sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is None and parameter.shape[:1] == (classes,):  # a second classifier
            raise ValueError(f"its {name} would not be used")
    net.zero_grad()


def _check_shapes(found: Outputs, classes: int, width: int, maps: bool) -> None:
    for what, value, expected in (
        ("logits", found.logits, (2, classes)),
        ("pooled features", found.pooled, (2, width)),
    ):
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"its {what} are {shape}, not {expected}")
    if maps and not (found.maps and all(one.dim() == 4 for one in found.maps)):
        shapes = [tuple(one.shape) for one in found.maps]
        raise ValueError(f"its feature maps are {shapes}, not each [B, C, H, W]")


def _own_size(name: str) -> int | None:
    """The size that a network of timm was made for, pixels."""
    return timm_models.own_size(name.removeprefix(TIMM_PREFIX)) if from_timm(name) else None


def _ways(tried: Callable[[int], object], image_size: int, own: int | None) -> str:
    """The usual sizes that work. Where not even the network's own does, no size is to blame."""

    def works(size: int) -> bool:
        try:
            tried(size)
        except Exception:  # noqa: BLE001 - the question is only whether
            return False
        return True

    if own is not None and (own == image_size or not works(own)):
        return NO_SIZE
    sizes = sorted({*OTHER_SIZES, own or OTHER_SIZES[0]} - {image_size})
    working = [size for size in sizes if size == own or works(size)]
    if not working:
        return NO_SIZE
    return f"of the usual sizes it takes {', '.join(map(str, working))} (data.image_size)"
