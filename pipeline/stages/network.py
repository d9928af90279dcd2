"""Networks by name, on the device of a command."""

from __future__ import annotations

import torch
from torch import nn

from trainers import models
from trainers.data import DataConfig
from trainers.numerics import Numerics
from trainers.rng import seeded


def network(model: str, data: DataConfig, numerics: Numerics, device: torch.device) -> nn.Module:
    """A network of this name for the data set, on the device; its weights are loaded next."""
    with seeded(0, "shape"):  # leaves every random stream as it is
        net = models.build(model, data.classes, data.image_size, in_chans=data.channels)
    return models.place(net, device, numerics.layout())
