"""Precision and memory layout of a run: part of its identity, because they move last bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

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


def use_repeatable_kernels() -> None:
    """Make a GPU give the same bits in every run, and float32 be float32.

    By default cuDNN picks kernels whose additions come in any order, and convolves float32 numbers
    in TF32; on an H200 no run was equal to its repetition. For the whole process; before the first
    work on the GPU, because cuBLAS reads its setting then. Operations that have no such kernel
    give torch's own warning.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
