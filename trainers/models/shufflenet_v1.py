"""ShuffleNet ×1.0 of three groups (Zhang et al. 2018, arXiv 1707.01083) for small images.

The form of the public CIFAR tables of Tian et al. 2020 (arXiv 1910.10699): a 1×1 stem of 24
channels, no pooling before the groups, 240-480-960 channels: final map 4×4 at 32 px.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.models.cifar_resnet import SmallNet

STEM, WIDTHS, UNITS, GROUPS = 24, (240, 480, 960), (4, 8, 4), 3


class ShuffleUnit(nn.Module):
    """Grouped 1×1 → shuffle → depthwise 3×3 → grouped 1×1, added to the input; with stride 2 next
    to the averaged input. After the stem the first 1×1 is not grouped."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, 1 if channels_in == STEM else GROUPS
        own = channels - channels_in if stride == 2 else channels
        middle = own // 4  # of the channels that it makes, as in the public code
        self.conv1 = nn.Conv2d(channels_in, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, own, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(own)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.groups)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        if self.stride == 1:
            return F.relu(y + x, inplace=True)
        return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1), inplace=True)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels of the groups in turn: of (a b c | d e f) a d b e c f. [B, C, H, W]."""
    count, channels, height, width = x.shape
    apart = x.reshape(count, groups, channels // groups, height, width)
    return apart.transpose(1, 2).reshape(x.shape)


class ShuffleNetV1(SmallNet):
    """Stem, three groups of units whose first has stride 2, linear head."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_features = WIDTHS[-1]
        self.conv1 = nn.Conv2d(in_chans, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _group(STEM, WIDTHS[0], UNITS[0])
        self.layer2 = _group(WIDTHS[0], WIDTHS[1], UNITS[1])
        self.layer3 = _group(WIDTHS[1], WIDTHS[2], UNITS[2])
        self.fc = nn.Linear(self.num_features, num_classes)

    def block_names(self) -> list[list[str]]:
        return [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        return [self._stem, self.layer1, self.layer2, self.layer3]

    def _stem(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


def _group(channels_in: int, channels: int, count: int) -> nn.Sequential:
    first = ShuffleUnit(channels_in, channels, 2)
    return nn.Sequential(first, *(ShuffleUnit(channels, channels, 1) for _ in range(count - 1)))
