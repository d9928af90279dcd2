"""Precision and memory layout of a run: part of its identity, because they move last bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from trainers.options import option


@dataclass
class Numerics:
    """Precision and memory layout. Part of the run key."""

    precision: str = option(
        "float32",
        "precision of the forward pass; bfloat16: mixed precision",
        choices=("float32", "bfloat16"),
    )
    memory_format: str = option(
        "channels_last",
        "memory layout of images and weights",
        choices=("channels_last", "contiguous"),
    )

    def autocast(self, device: torch.device) -> torch.autocast:
        """bfloat16 autocast where requested; losses are computed in float32."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def plain(self) -> Numerics:
        """The same without mixed precision."""
        return replace(self, precision="float32")

    def layout(self) -> torch.memory_format:
        return (
            torch.channels_last
            if self.memory_format == "channels_last"
            else torch.contiguous_format
        )
