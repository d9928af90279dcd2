"""ShuffleNetV2 ×1.0 (Ma et al. 2018, arXiv 1807.11164) from torchvision, as a `SmallNet`.

Up to 64 pixels the stem has stride 1 and no max-pool follows, as in the CIFAR version of Tian et
al. 2020 (arXiv 1910.10699): final map 4×4 at 32 px. The stem keeps its 3×3 kernel (theirs is
1×1), so that weights of torchvision fit; names of the parameters are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import ShuffleNet_V2_X1_0_Weights, shufflenet_v2_x1_0

from trainers.models.cifar_resnet import SMALL_IMAGE, SmallNet


class ShuffleNet(SmallNet):
    def __init__(
        self, num_classes: int, in_chans: int, image_size: int, pretrained: bool = False
    ) -> None:
        super().__init__()
        weights = ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1 if pretrained else None
        net = shufflenet_v2_x1_0(weights=weights)
        small = image_size <= SMALL_IMAGE
        self.num_features = net.fc.in_features
        self.conv1 = net.conv1
        self.maxpool = nn.Identity() if small else net.maxpool
        self.stage2, self.stage3, self.stage4 = net.stage2, net.stage3, net.stage4
        self.conv5 = net.conv5
        self.fc = nn.Linear(self.num_features, num_classes)
        stem = cast(nn.Conv2d, net.conv1[0])
        self.conv1[0] = nn.Conv2d(
            in_chans, stem.out_channels, 3, stride=1 if small else 2, padding=1, bias=False
        )
        if pretrained:
            with torch.no_grad():
                self.conv1[0].weight.copy_(adapt_input_conv(in_chans, stem.weight))

    def block_names(self) -> list[list[str]]:
        return [["conv1"], ["stage2"], ["stage3"], ["stage4", "conv5"], ["fc"]]

    def blocks_in_order(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.conv1, self._second, self.stage3, self._last]

    def _second(self, x: Tensor) -> Tensor:
        found: Tensor = self.stage2(self.maxpool(x))
        return found

    def _last(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv5(self.stage4(x))
        return found
