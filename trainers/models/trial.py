"""Trial of a network: built and run once on two images of the data set's size.

timm's networks are tried on torch's meta device: shapes without values, so that a large one costs
no memory. The small ones of this project are built quicker than that device is imported.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers.models.forward import outputs, pooled_dim
from trainers.models.registry import CannotBuild, NoWeights, build, from_timm
from trainers.rng import seeded

OTHER_SIZES = (16, 24, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 288, 384, 448, 512)
_LONGEST = 160  # characters of a library's reason


class Trial(NamedTuple):
    """What a trial found: why the network cannot be used (empty: it can), and otherwise the names,
    shapes and types of its weights; their values mean nothing."""

    fault: str
    weights: dict[str, Tensor]


@lru_cache(maxsize=32)
def trial(
    name: str, classes: int, image_size: int, channels: int, pretrained: bool = False
) -> Trial:
    """Build a network that `exists` and run it once, in evaluation mode, on two images; no random
    stream is changed. `pretrained` weights are fetched as a run would."""
    try:
        weights = _run(name, classes, image_size, channels)
        if pretrained:
            with seeded(0, "trial"):
                build(name, classes, image_size, True, in_chans=channels)
        return Trial("", weights)
    except NoWeights as error:
        return Trial(str(error), {})
    except Exception as error:  # noqa: BLE001 - whatever a library's network raises is the answer
        return Trial(_reason(name, classes, image_size, channels, error), {})


def _run(name: str, classes: int, image_size: int, channels: int) -> dict[str, Tensor]:
    """The weights of a network that runs.

    Raises:
        Exception: it does not, or its outputs are none that can be distilled.
    """
    devices = ("meta", "cpu") if from_timm(name) else ("cpu",)
    for device in devices:
        try:
            on = torch.device(device) if device == "meta" else nullcontext()
            with seeded(0, "trial"), on, torch.no_grad():
                net = build(name, classes, image_size, in_chans=channels).eval()
                _check(net, torch.zeros(2, channels, image_size, image_size), classes)
            return net.state_dict()
        except (NotImplementedError, RuntimeError, ValueError) as error:
            # Some networks need values while they are built: they are tried on the CPU.
            if device == "cpu" or isinstance(error, CannotBuild) or "meta" not in str(error):
                raise
    raise AssertionError(name)


def _check(net: nn.Module, images_BCHW: Tensor, classes: int) -> None:
    found = outputs(net, images_BCHW)
    for what, value, expected in (
        ("logits", found.logits, (2, classes)),
        ("pooled features", found.pooled, (2, pooled_dim(net))),
    ):
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"its {what} are {shape}, not {expected}")


def _reason(name: str, classes: int, image_size: int, channels: int, error: Exception) -> str:
    if isinstance(error, CannotBuild):
        return str(error)
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST]
    sizes = [size for size in OTHER_SIZES if size != image_size]
    working = [size for size in sizes if _runs(name, classes, size, channels)]
    if working:
        listed = ", ".join(map(str, working))
        way = f"of the usual sizes it takes {listed} (data.image_size)"
    else:
        way = "it gives no pooled features and classifier at any usual size: choose another"
    return f"cannot be run on images of {image_size} pixels, {channels} channels ({text}); {way}"


def _runs(name: str, classes: int, size: int, channels: int) -> bool:
    try:
        _run(name, classes, size, channels)
    except Exception:  # noqa: BLE001 - the question is only whether
        return False
    return True
