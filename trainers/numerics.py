"""Precision and memory layout of a run: part of its identity, because they move last bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainers.options import option

MIXED = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # by the name of the precision


@dataclass
class Numerics:
    """Precision and memory layout. Part of the run key."""

    precision: str = option(
        "float32",
        "precision of the networks: bfloat16 and float16 are mixed precision (float16 with a "
        "gradient scaler); tf32: float32 whose products a GPU multiplies in TF32",
        choices=("float32", "bfloat16", "float16", "tf32"),
    )
    memory_format: str = option(
        "channels_last",
        "memory layout of images and weights",
        choices=("channels_last", "contiguous"),
    )
    compile: bool = option(
        False,
        "torch.compile of the networks that run in every optimiser step, for large ones: it needs "
        "a C++ compiler and moves last bits",
        added=True,
    )

    @property
    def mixed(self) -> bool:
        """Whether networks compute in a half precision and losses in float32."""
        return self.precision in MIXED

    @property
    def dtype(self) -> torch.dtype:
        """The type in which networks compute."""
        return MIXED.get(self.precision, torch.float32)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Mixed precision where requested; losses are computed in float32."""
        dtype = self.dtype if self.mixed else torch.bfloat16  # not used where it is off
        return torch.autocast(device.type, dtype=dtype, enabled=self.mixed)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler | None:
        """The gradient scaler that float16 needs, because it has no numbers below 6e-8."""
        return torch.amp.GradScaler(device.type) if self.precision == "float16" else None

    def plain(self) -> Numerics:
        """The same without mixed precision."""
        return replace(self, precision="float32")

    def layout(self) -> torch.memory_format:
        return (
            torch.channels_last
            if self.memory_format == "channels_last"
            else torch.contiguous_format
        )


def use_tf32(on: bool) -> None:
    """Whether a GPU multiplies float32 numbers in TF32, which keeps 10 bits of their mantissa; for
    the whole process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on


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
    use_tf32(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    for enable in (
        torch.backends.cuda.enable_flash_sdp,
        torch.backends.cuda.enable_mem_efficient_sdp,
        torch.backends.cuda.enable_cudnn_sdp,
    ):
        enable(False)  # fused kernels of attention: where torch only warns, they add in any order
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
