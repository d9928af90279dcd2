"""Calls and waits of the host in a step of every case of benchmarks.gpu and of a bare loop, on the
stand-in.

    python -m tests.fakecuda.counts        (with the variables that tests.fakecuda.build prints)

prints a line of JSON a case and step: calls (kernels, library calls, fills, copies), and waits.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch

from benchmarks.gpu.cases import (
    NAMES,
    Scale,
    config,
    data_of,
    random_data,
    random_teachers,
    steps_of,
    work,
)
from benchmarks.gpu.checks import SMALL
from benchmarks.gpu.speed import bare
from trainers.numerics import Numerics

FIELDS = (
    "kernels",
    "libraries",
    "fills",
    "uploads",
    "downloads",
    "copies",
    "waits",
    "graphs",
    "illegal",
    "events",
)
CALLS = ("kernels", "libraries", "fills", "uploads", "downloads", "copies", "graphs")
BARE = "bare loop"
CUDA = torch.device("cuda")
LIBRARY = ctypes.CDLL(None)
FEW, MANY = 3, 8
SCALED = ("L3", "kd")  # cases that are counted in float16 too, with its gradient scaler


def counts() -> dict[str, int]:
    """What was counted since the last `fakecuda_reset`."""
    LIBRARY.fakecuda_counts.restype = ctypes.POINTER(ctypes.c_long)
    found = LIBRARY.fakecuda_counts()
    return {name: found[i] for i, name in enumerate(FIELDS)}


def of_step(name: str, step: str, precision: str = "float32") -> dict[str, float]:
    """Calls and waits that one more step adds to an epoch of a case."""

    def epoch(scale: Scale) -> Callable[[], object]:
        data = data_of(name, random_data(scale, CUDA))
        settings = config(name, scale, Numerics(precision))
        return work(settings, data, random_teachers(scale, data), step).epoch

    return _added(epoch)


def of_bare_step() -> dict[str, float]:
    """The same of plain cross-entropy on images that lie ready on the device."""
    return _added(lambda scale: bare(scale, random_data(scale, CUDA), Numerics()))


def _added(epoch_of: Callable[[Scale], Callable[[], object]]) -> dict[str, float]:
    def of_epoch(steps: int) -> dict[str, int]:
        epoch = epoch_of(replace(SMALL, images=SMALL.batch * steps))
        epoch()
        LIBRARY.fakecuda_reset()
        epoch()
        return counts()

    few, many = of_epoch(FEW), of_epoch(MANY)
    added = {key: round((many[key] - few[key]) / (MANY - FEW), 2) for key in FIELDS}
    return {"calls": round(sum(added[key] for key in CALLS), 1), "waits": added["waits"]}


def rows(names: Iterable[str], scaled: Iterable[str]) -> Iterator[dict[str, str | float]]:
    """A row for the bare loop and for every step of the cases, and of those in float16."""
    yield {"name": BARE, **of_bare_step()}
    for name in names:
        for step in steps_of(name):
            yield {"name": f"{name} {step}", **of_step(name, step)}
    torch.backends.cuda.enable_cudnn_sdp(False)  # attention in half precision: not in the stand-in
    for name in scaled:
        for step in steps_of(name):
            yield {"name": f"{name} float16 {step}", **of_step(name, step, "float16")}


if __name__ == "__main__":
    for row in rows(sys.argv[1:] or NAMES, () if sys.argv[1:] else SCALED):
        print(json.dumps(row), flush=True)
