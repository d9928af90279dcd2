"""Calls and waits of the host in a step of every case of benchmarks.gpu, on the stand-in.

    python -m tests.fakecuda.counts        (with the variables that tests.fakecuda.build prints)

prints a line of JSON a case and step: calls (kernels, library calls, fills, copies), and waits.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import replace

import torch

from benchmarks.gpu.cases import NAMES, config, random_data, random_teachers, steps_of, work
from benchmarks.gpu.checks import SMALL

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
)
CALLS = ("kernels", "libraries", "fills", "uploads", "downloads", "copies", "graphs")
LIBRARY = ctypes.CDLL(None)
FEW, MANY = 3, 8


def counts() -> dict[str, int]:
    """What was counted since the last `fakecuda_reset`."""
    LIBRARY.fakecuda_counts.restype = ctypes.POINTER(ctypes.c_long)
    found = LIBRARY.fakecuda_counts()
    return {name: found[i] for i, name in enumerate(FIELDS)}


def of_step(name: str, step: str) -> dict[str, float]:
    """Calls and waits that one more step adds to an epoch."""

    def of_epoch(steps: int) -> dict[str, int]:
        scale = replace(SMALL, images=SMALL.batch * steps)
        data = random_data(scale, torch.device("cuda"))
        ready = work(config(name, scale), data, random_teachers(scale, data), step)
        ready.epoch()
        LIBRARY.fakecuda_reset()
        ready.epoch()
        return counts()

    few, many = of_epoch(FEW), of_epoch(MANY)
    added = {key: (many[key] - few[key]) / (MANY - FEW) for key in FIELDS}
    return {"calls": sum(added[key] for key in CALLS), "waits": added["waits"]}


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        for step in steps_of(name):
            print(json.dumps({"name": f"{name} {step}", **of_step(name, step)}), flush=True)
