"""Students and teachers by name: `build`, and what is known of a network without building it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from trainers.errors import UserError
from trainers.models import hub, timm_models
from trainers.models.cifar_resnet import RESNETS, CifarResNet
from trainers.models.mobilenet_half import MobileNetHalf
from trainers.models.shufflenet_v1 import ShuffleNetV1
from trainers.models.vgg import VGGS, Vgg
from trainers.models.wide_resnet import WIDE_RESNETS, WideResNet

TIMM_PREFIX = "timm:"
_TURN_OFF = "set student.pretrained=false (a teacher: teacher.N.pretrained=false)"


class CannotBuild(UserError, ValueError):
    """The requested network cannot be built: an error in the options, reported in one message."""


class UnknownModel(CannotBuild):
    """The name is neither in the registry nor one of timm's."""


class NoWeights(CannotBuild):
    """Pretrained weights cannot be fetched."""


Make = Callable[[int, int, int, bool], nn.Module]  # of classes, channels, pixels, pretrained


class Architecture(NamedTuple):
    """A network of the registry."""

    make: Make
    width: int  # of the pooled features
    blocks: int  # before the head: the highest level of freezing
    weights: bool = True  # whether published ones exist
    smallest: int = 4  # image side, pixels, whose final map is not empty


def _cifar_resnet(depth: int, widths: tuple[int, int, int, int]) -> Architecture:
    def make(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
        return CifarResNet(depth, widths, classes, channels)

    return Architecture(make, widths[3], 4, weights=False)


def _wide_resnet(depth: int, widening: int) -> Architecture:
    def make(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
        return WideResNet(depth, widening, classes, channels)

    return Architecture(make, 64 * widening, 4, weights=False)


def _vgg(convolutions: int) -> Architecture:
    def make(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
        return Vgg(convolutions, classes, channels, pixels)

    return Architecture(make, 512, 5, weights=False, smallest=8)


def _shufflenet(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
    from trainers.models.shufflenet import ShuffleNet  # torchvision takes seconds to import

    return ShuffleNet(classes, channels, pixels, pretrained)


def _shufflenet_v1(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
    return ShuffleNetV1(classes, channels)


def _mobilenet_half(classes: int, channels: int, pixels: int, pretrained: bool) -> nn.Module:
    return MobileNetHalf(classes, channels)


ARCHITECTURES: dict[str, Architecture] = {
    **{name: _cifar_resnet(*shape) for name, shape in RESNETS.items()},
    **{name: _wide_resnet(*shape) for name, shape in WIDE_RESNETS.items()},
    **{name: _vgg(convolutions) for name, convolutions in VGGS.items()},
    **{
        name: Architecture(
            partial(timm_models.create, net.name, net.adapt),
            net.width,
            net.blocks,
            smallest=net.smallest,
        )
        for name, net in timm_models.TIMM_NETS.items()
    },
    "shufflenet_v1": Architecture(_shufflenet_v1, 960, 4, weights=False),
    "shufflenet_v2": Architecture(_shufflenet, 1024, 4),
    "mobilenet_v2_half": Architecture(_mobilenet_half, 1280, 5, weights=False),
}


def names() -> tuple[str, ...]:
    """The names that `build` knows besides `timm:<name>`."""
    return tuple(sorted(ARCHITECTURES))


def build(
    name: str, num_classes: int, image_size: int, pretrained: bool = False, *, in_chans: int = 3
) -> nn.Module:
    """A classifier for square images of `image_size` pixels.

    Up to 64 pixels the registered networks keep their early maps large (first stride 1, no
    max-pool), so that the final map of 32-pixel images is at least 4×4; `timm:<name>` is taken as
    it is.

    Raises:
        UnknownModel: nothing of that name.
        CannotBuild: images too small or without channels, or `pretrained` for a net that has no
            published weights.
        NoWeights: pretrained weights cannot be fetched.
    """
    if not exists(name):
        raise UnknownModel(f"no model named {name!r}")
    wrong = misfit(name, image_size, in_chans, pretrained)
    if wrong:
        raise CannotBuild(wrong)
    plain = name.removeprefix(TIMM_PREFIX)
    as_it_is = partial(timm_models.create, plain, None)
    make: Make = as_it_is if plain != name else ARCHITECTURES[name].make
    if not pretrained:
        return make(num_classes, in_chans, image_size, False)
    try:
        with hub.one_try() if from_timm(name) else nullcontext():
            return make(num_classes, in_chans, image_size, True)
    except Exception as error:  # the hub's client alone has a dozen kinds
        raise NoWeights(
            f"pretrained weights of {name} cannot be fetched ({type(error).__name__}: {error}); "
            f"{_TURN_OFF}, or run once where they can be fetched"
        ) from error


def misfit(name: str, image_size: int, in_chans: int, pretrained: bool) -> str | None:
    """Why `build` cannot make a network that it knows, as far as is known without trying."""
    smallest = ARCHITECTURES[name].smallest if name in ARCHITECTURES else 1
    if image_size < smallest:
        return f"{name} needs images of at least {smallest} pixels, not {image_size}"
    if in_chans < 1:
        return f"{name} needs images of at least 1 channel, not {in_chans}"
    if pretrained and not _published(name):
        return f"{name} has no published weights: {_TURN_OFF}"
    return None


def _published(name: str) -> bool:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].weights
    return timm_models.published(name.removeprefix(TIMM_PREFIX))


def exists(name: str) -> bool:
    """Whether `build` knows the name."""
    if not name.startswith(TIMM_PREFIX):
        return name in ARCHITECTURES
    return timm_models.known(name.removeprefix(TIMM_PREFIX))


def from_timm(name: str) -> bool:
    """Whether a network is one of timm's, registered or by `timm:<name>`."""
    return name.startswith(TIMM_PREFIX) or name in timm_models.TIMM_NETS


def place(model: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """The model on a device, its weights in a memory format."""
    moved: nn.Module = cast(Any, model).to(device, memory_format=layout)
    return moved


def known_width(name: str) -> int | None:
    """Pooled width of a net of the registry; None where it takes building it to know."""
    return ARCHITECTURES[name].width if name in ARCHITECTURES else None


def known_blocks(name: str) -> int | None:
    """Blocks before the head of a net of the registry, which is its highest level of freezing;
    None where it takes building it to know."""
    return ARCHITECTURES[name].blocks if name in ARCHITECTURES else None
