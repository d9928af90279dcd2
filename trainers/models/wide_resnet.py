"""Wide residual nets for CIFAR, `wrn_DEPTH_WIDTH`: Zagoruyko & Komodakis 2016 (arXiv 1605.07146).

Pre-activation blocks without dropout, as in the public tables of Tian et al. 2020 (arXiv
1910.10699).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from trainers.models.cifar_resnet import SmallNet, he_normal

WIDE_RESNETS = {
    "wrn_16_2": (16, 2),
    "wrn_40_1": (40, 1),
    "wrn_40_2": (40, 2),
}  # depth, widening factor


class WideBlock(nn.Module):
    """BN → ReLU → 3×3 → BN → ReLU → 3×3, added to the input or its 1×1 projection."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        same = channels_in == channels
        self.shortcut = None if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x), inplace=True)
        kept = x if self.shortcut is None else self.shortcut(y)
        return kept + self.conv2(F.relu(self.bn2(self.conv1(y)), inplace=True))


class WideResNet(SmallNet):
    """Stem (3×3, stride 1), three groups of `(depth - 4) / 6` blocks, BN, linear head."""

    def __init__(self, depth: int, widening: int, num_classes: int, in_chans: int) -> None:
        super().__init__()
        widths, count = [16, 16 * widening, 32 * widening, 64 * widening], (depth - 4) // 6
        self.num_features = widths[3]
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, 1, 1, bias=False)
        self.block1 = _group(widths[0], widths[1], count, 1)
        self.block2 = _group(widths[1], widths[2], count, 2)
        self.block3 = _group(widths[2], widths[3], count, 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)

    def block_names(self) -> list[list[str]]:
        return [["conv1"], ["block1"], ["block2"], ["block3", "bn1"], ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.conv1, self.block1, self.block2, self._last]

    def _last(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.block3(x)), inplace=True)


def _group(channels_in: int, channels: int, count: int, stride: int) -> nn.Sequential:
    first = WideBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(WideBlock(channels, channels, 1) for _ in range(count - 1)))
