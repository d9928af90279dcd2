"""VGG nets for CIFAR with batch normalisation and one linear layer as head.

Simonyan & Zisserman 2014 (arXiv 1409.1556); five blocks as in the public tables of Tian et al.
2020 (arXiv 1910.10699), `vgg8` with one convolution a block, `vgg13` with two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.models.cifar_resnet import SMALL_IMAGE, SmallNet, he_normal

_WIDTHS = (64, 128, 256, 512, 512)
VGGS = {"vgg8": 1, "vgg13": 2}  # convolutions a block


class Vgg(SmallNet):
    """Five blocks with 2×2 max-pooling after the first three; from 64 px on after the fourth too.

    The final map of 32 and 64 pixel images is 4×4.
    """

    def __init__(self, convolutions: int, num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        self.num_features = _WIDTHS[-1]
        self.pools = 4 if image_size >= SMALL_IMAGE else 3
        widths_in = (in_chans, *_WIDTHS)
        self.blocks = nn.ModuleList(
            _block(channels_in, channels, convolutions)
            for channels_in, channels in zip(widths_in, _WIDTHS, strict=False)
        )
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)
        he_normal(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def block_names(self) -> list[list[str]]:
        return [*([f"blocks.{i}"] for i in range(len(self.blocks))), ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        return [partial(self._block, number) for number in range(len(self.blocks))]

    def _block(self, number: int, x: Tensor) -> Tensor:
        if 0 < number <= self.pools:
            x = F.max_pool2d(x, 2)
        found: Tensor = self.blocks[number](x)
        return found


def _block(channels_in: int, channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        width_in = channels if number else channels_in
        layers += [nn.Conv2d(width_in, channels, 3, padding=1), nn.BatchNorm2d(channels)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
