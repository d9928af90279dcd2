"""MobileNetV2 of half width (Sandler et al. 2018, arXiv 1801.04381) for small images.

The form of the public CIFAR tables of Tian et al. 2020 (arXiv 1910.10699): a stem of stride 2, the
group of 24 channels with stride 1, ReLU, 1280 features: final map 2×2 at 32 px. It is not
timm's MobileNetV2, which is twice as wide (`mobilenet_v2`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainers.models.cifar_resnet import SmallNet

STEM, FEATURES = 16, 1280
# expansion, channels at half width, units, stride of the first unit
GROUPS = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)


class InvertedResidual(nn.Module):
    """1×1 to more channels, depthwise 3×3, 1×1 without ReLU; added to the input where shapes are
    equal."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.adds = stride == 1 and channels_in == channels
        self.conv = nn.Sequential(
            *_layer(channels_in, wide, 1),
            *_layer(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetHalf(SmallNet):
    """Stem, seven groups of inverted residuals, a last 1×1, linear head."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_features = FEATURES
        self.conv1 = nn.Sequential(*_layer(in_chans, STEM, 3, 2))
        groups, width = [], STEM
        for expansion, channels, count, stride in GROUPS:
            units = [InvertedResidual(width, channels, stride, expansion)]
            units += [InvertedResidual(channels, channels, 1, expansion) for _ in range(count - 1)]
            groups.append(nn.Sequential(*units))
            width = channels
        self.groups = nn.ModuleList(groups)
        self.conv2 = nn.Sequential(*_layer(width, FEATURES, 1))
        self.fc = nn.Linear(FEATURES, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def block_names(self) -> list[list[str]]:
        """The stem, the groups of one size of the map each, the head."""
        two = [["groups.0", "groups.1"], ["groups.2"], ["groups.3", "groups.4"]]
        return [["conv1"], *two, ["groups.5", "groups.6", "conv2"], ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        g = self.groups
        middle = [nn.Sequential(g[0], g[1]), g[2], nn.Sequential(g[3], g[4])]
        return [self.conv1, *middle, nn.Sequential(g[5], g[6], self.conv2)]


def _layer(
    channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
