"""Calls and waits of the host in a step of every case of benchmarks.gpu and of a bare loop, on the
stand-in.

    python -m tests.fakecuda.counts        (with the variables that tests.fakecuda.build prints)

prints a line of JSON a case and step: calls (kernels, library calls, fills, copies, graphs), waits,
and of steps as CUDA graphs (`graph`) how many of the calls are one, its nodes, and what a recording
forbids.
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
    TeacherWork,
    Work,
    random_data,
    small_work,
    steps_of,
)
from benchmarks.gpu.checks import SMALL
from benchmarks.gpu.speed import bare
from trainers.numerics import Numerics, use_repeatable_kernels
from trainers.step_graph import Graphs, Recording

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
    "nodes",
)
CALLS = ("kernels", "libraries", "fills", "uploads", "downloads", "copies", "graphs")
BARE = "bare loop"
CUDA = torch.device("cuda")
LIBRARY = ctypes.CDLL(None)
FEW, MANY = 3, 8
GRAPHS = 16  # steps of an epoch as graphs, the first of which are none
SCALED = ("L3", "kd")  # cases that are counted in float16 too, with its gradient scaler


def counts() -> dict[str, int]:
    """What was counted since the last `fakecuda_reset`."""
    LIBRARY.fakecuda_counts.restype = ctypes.POINTER(ctypes.c_long)
    found = LIBRARY.fakecuda_counts()
    return {name: found[i] for i, name in enumerate(FIELDS)}


def of_step(name: str, step: str, precision: str = "float32") -> dict[str, float]:
    """Calls and waits that one more step adds to an epoch of a case."""
    return _added(lambda scale: _ready(name, step, precision, scale).epoch)


def of_graph(name: str, step: str, precision: str = "float32") -> dict[str, float] | None:
    """Calls and waits of a step that is a CUDA graph, from one launch to the next, and what no
    recording allows; None: it is none."""
    ready = _ready(name, step, precision, replace(SMALL, images=SMALL.batch * GRAPHS))
    ready.state.graphs = graphs = _CountedGraphs(CUDA)
    ready.epoch()
    if not graphs.counted:
        return None
    first, *_, last = graphs.counted
    each = {key: (last[key] - first[key]) / (len(graphs.counted) - 1) for key in FIELDS}
    graph = {"graphs": each["graphs"], "nodes": graphs.nodes, "illegal": last["illegal"]}
    return _calls(each) | graph


def of_bare_step() -> dict[str, float]:
    """Calls and waits of plain cross-entropy on images that lie ready on the device."""
    return _added(lambda scale: bare(scale, random_data(scale, CUDA), Numerics()))


class _CountedGraphs(Graphs):
    """Graphs that note how many nodes the last one has, and what was counted after each launch."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.counted, self.nodes = list[dict[str, int]](), 0

    def record(self, body: Callable[[], None], purpose: str) -> Recording | None:
        before = counts()["nodes"]
        recorded = super().record(body, purpose)
        self.nodes = counts()["nodes"] - before
        return recorded

    def mark(self, replayed: int) -> None:
        super().mark(replayed)
        self.counted.append(counts())


def _ready(name: str, step: str, precision: str, scale: Scale) -> Work | TeacherWork:
    return small_work(name, step, scale, CUDA, Numerics(precision))


def _added(epoch_of: Callable[[Scale], Callable[[], object]]) -> dict[str, float]:
    def of_epoch(steps: int) -> dict[str, int]:
        epoch = epoch_of(replace(SMALL, images=SMALL.batch * steps))
        epoch()
        LIBRARY.fakecuda_reset()
        epoch()
        return counts()

    few, many = of_epoch(FEW), of_epoch(MANY)
    return _calls({key: round((many[key] - few[key]) / (MANY - FEW), 2) for key in FIELDS})


def _calls(added: dict[str, float]) -> dict[str, float]:
    return {"calls": round(sum(added[key] for key in CALLS), 1), "waits": added["waits"]}


def rows(names: Iterable[str], scaled: Iterable[str]) -> Iterator[dict[str, str | float]]:
    """A row for the bare loop and for every step of the cases, of some in float16 too; then for
    those that can be a CUDA graph."""
    yield {"name": BARE, **of_bare_step()}
    steps = [(name, step, "float32") for name in names for step in steps_of(name)]
    steps += [(name, step, "float16") for name in scaled for step in steps_of(name)]
    for kind, count in (("", of_step), (" graph", of_graph)):
        for name, step, precision in steps:
            half = " float16" if precision == "float16" else ""
            if (found := count(name, step, precision)) is not None:
                yield {"name": f"{name}{half} {step}{kind}", **found}


if __name__ == "__main__":
    use_repeatable_kernels()  # as every run on a GPU does
    for row in rows(sys.argv[1:] or NAMES, () if sys.argv[1:] else SCALED):
        print(json.dumps(row), flush=True)
