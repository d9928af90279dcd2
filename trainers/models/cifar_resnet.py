"""The small CIFAR residual nets of the distillation literature, and the protocol of small nets.

He et al. 2016 (arXiv 1512.03385) section 4.2 with 1×1 projections; widths as in the public
tables of Tian et al. 2020 (arXiv 1910.10699): `resnetN` has 16-16-32-64 channels, `resnetNx4`
32-64-128-256.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

# Up to this many pixels a network made for 224 px keeps its first maps at full size.
SMALL_IMAGE = 64

RESNETS: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "resnet8": (8, (16, 16, 32, 64)),
    "resnet20": (20, (16, 16, 32, 64)),
    "resnet32": (32, (16, 16, 32, 64)),
    "resnet56": (56, (16, 16, 32, 64)),
    "resnet110": (110, (16, 16, 32, 64)),
    "resnet8x4": (8, (32, 64, 128, 256)),
    "resnet32x4": (32, (32, 64, 128, 256)),
}


class SmallNet(nn.Module):
    """What the rest of the system reads of a network, as timm's models have it: a subclass adds
    `num_features`, `fc`, its blocks and its feature maps."""

    num_features: int  # pooled width D
    fc: nn.Linear

    @abstractmethod
    def block_names(self) -> list[list[str]]:
        """Module names of the ordered blocks: stem, groups, head."""

    @abstractmethod
    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        """What makes each block's map of the map before it, without the head."""

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The final map and the maps of every block, the final one last among them."""
        maps: list[Tensor] = []
        for block in self.blocks_in_order():
            x = block(x)
            maps.append(x)
        return x, maps

    def forward_blocks(self, x: Tensor, first: int, end: int | None = None) -> Tensor:
        """What the blocks from `first` to before `end` (None: the last) make of a map."""
        for block in self.blocks_in_order()[first:end]:
            x = block(x)
        return x

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_blocks(x, 0)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def he_normal(net: nn.Module) -> None:
    """Initial weights of all convolutions: normal, std √(2 / (k²·channels out))."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class CifarResNet(SmallNet):
    """Stem (3×3, stride 1, no max-pool), three groups of `(depth - 2) / 6` blocks, linear head."""

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int], num_classes: int, in_chans: int
    ) -> None:
        super().__init__()
        self.num_features = widths[3]
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        count = (depth - 2) // 6
        self.layer1 = _group(widths[0], widths[1], count, 1)
        self.layer2 = _group(widths[1], widths[2], count, 2)
        self.layer3 = _group(widths[2], widths[3], count, 2)
        self.fc = nn.Linear(widths[3], num_classes)
        he_normal(self)

    def block_names(self) -> list[list[str]]:
        return [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        return [self._stem, self.layer1, self.layer2, self.layer3]

    def _stem(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


def _group(channels_in: int, channels: int, count: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(count - 1)))
