"""How measurements are printed: medians with their spread, in tables of at most 100 columns."""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.setting import Setting
from pipeline.stages.provenance import versions
from trainers.data import TrainingData

WIDTH = 100
_CPU_INFO = Path("/proc/cpuinfo")


def ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    """Ratios within each round: what disturbs the machine for longer than a round cancels."""
    return [a / b for a, b in zip(upper, lower, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (least … largest)`."""
    middle, low, high = (f"{v:.{digits}f}" for v in (median(values), min(values), max(values)))
    return f"{middle} ({low} … {high})"


def at_least(target: float, values: Sequence[float]) -> str:
    """Whether the median meets a target, `≥ 0.90 yes`."""
    return f"≥ {target:.2f} {'yes' if median(values) >= target else 'no '}"


def at_most(target: float, values: Sequence[float]) -> str:
    """Whether the median meets a target, `≤ 1.25 yes`."""
    return f"≤ {target:.2f} {'yes' if median(values) <= target else 'no '}"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a caption: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        parts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([textwrap.fill(caption, WIDTH), "", line(head), rule, *map(line, rows), ""])


def heading(setting: Setting, data: TrainingData) -> str:
    """Device, threads, versions, data, networks and budget."""
    config = setting.config("L2")
    packages = ", ".join(f"{name} {versions()[name]}" for name in ("python", "torch", "numpy"))
    threads = torch.get_num_threads()
    text = (
        f"Device: {device_name(setting.device)}, {threads} thread{'s' if threads > 1 else ''}, "
        f"{'CPU seconds of the process' if setting.cpu_clock else 'wall clock'}; {packages}. "
        f"Data: {setting.bench}, {len(data.train.labels)} training and {len(data.val.labels)} "
        f"validation images of {config.data.image_size} px, {config.data.views} views. Student: "
        f"{config.student.model}, batch {config.optim.batch}, {config.optim.name}, "
        f"{config.numerics.precision}, {config.numerics.memory_format}. Budget {setting.budget}: "
        f"{config.budget.student_epochs} B-Step and {config.budget.adapt_epochs} A-Step epochs."
    )
    return textwrap.fill(text, WIDTH) + "\n"


def device_name(device: torch.device) -> str:
    """The model of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    return f"CPU ({name[1] if name else platform.machine()})"
