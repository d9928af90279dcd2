"""Calls and waits of the host in a step of every case of benchmarks.gpu and of a bare loop, on the
stand-in.

    python -m tests.fakecuda.counts        (with the variables that tests.fakecuda.build prints)

prints a line of JSON a case and step: calls (kernels, library calls, fills, copies, graphs), waits,
and of steps as CUDA graphs (`graph`) how many of the calls are one, and what a recording forbids.
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
FEW_GRAPHS, MANY_GRAPHS = 16, 56  # steps: the first ones are no graph
SCALED = ("L3", "kd")  # cases that are counted in float16 too, with its gradient scaler


def counts() -> dict[str, int]:
    """What was counted since the last `fakecuda_reset`."""
    LIBRARY.fakecuda_counts.restype = ctypes.POINTER(ctypes.c_long)
    found = LIBRARY.fakecuda_counts()
    return {name: found[i] for i, name in enumerate(FIELDS)}


def of_step(
    name: str, step: str, precision: str = "float32", *, graph: bool = False
) -> dict[str, float]:
    """Calls and waits that one more step adds to an epoch of a case."""

    def epoch(scale: Scale) -> Callable[[], object]:
        data = data_of(name, random_data(scale, CUDA))
        settings = config(name, scale, Numerics(precision))
        return work(settings, data, random_teachers(scale, data), step, graph=graph).epoch

    if not graph:
        return _calls(_added(epoch, FEW, MANY))
    added = _added(epoch, FEW_GRAPHS, MANY_GRAPHS)
    return {**_calls(added), "graphs": added["graphs"], "illegal": added["illegal"]}


def of_bare_step() -> dict[str, float]:
    """The same of plain cross-entropy on images that lie ready on the device."""
    epoch = _added(lambda scale: bare(scale, random_data(scale, CUDA), Numerics()), FEW, MANY)
    return _calls(epoch)


def _added(
    epoch_of: Callable[[Scale], Callable[[], object]], few: int, many: int
) -> dict[str, float]:
    """Counts that a step adds; of what no recording allows those of the whole epoch."""

    def of_epoch(steps: int) -> dict[str, int]:
        epoch = epoch_of(replace(SMALL, images=SMALL.batch * steps))
        epoch()
        LIBRARY.fakecuda_reset()
        epoch()
        return counts()

    less, more = of_epoch(few), of_epoch(many)
    added = {key: round((more[key] - less[key]) / (many - few), 2) for key in FIELDS}
    return added | {"illegal": more["illegal"]}


def _calls(added: dict[str, float]) -> dict[str, float]:
    return {"calls": round(sum(added[key] for key in CALLS), 1), "waits": added["waits"]}


def rows(names: Iterable[str], scaled: Iterable[str]) -> Iterator[dict[str, str | float]]:
    """A row for the bare loop and for every step of the cases, and of those in float16; then the
    same as CUDA graphs."""
    yield {"name": BARE, **of_bare_step()}
    steps = [(name, step, "float32") for name in names for step in steps_of(name)]
    steps += [(name, step, "float16") for name in scaled for step in steps_of(name)]
    for graph in (False, True):
        for name, step, precision in steps:
            # Attention in half precision is not in the stand-in.
            torch.backends.cuda.enable_cudnn_sdp(precision == "float32")
            words = (name, precision, step) if precision == "float16" else (name, step)
            words = (*words, "graph") if graph else words
            yield {"name": " ".join(words), **of_step(name, step, precision, graph=graph)}


if __name__ == "__main__":
    for row in rows(sys.argv[1:] or NAMES, () if sys.argv[1:] else SCALED):
        print(json.dumps(row), flush=True)
