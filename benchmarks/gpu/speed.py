"""Images per second of the steps, compared with a bare loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import product
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu import loops
from benchmarks.gpu.cases import (
    CLASSES,
    TEACHER,
    Scale,
    config,
    data_of,
    random_data,
    random_teachers,
    small_work,
    steps_of,
    work,
)
from trainers.data import TrainingData
from trainers.distillation.state import Teacher
from trainers.numerics import Numerics

ROUNDS = 3
GRAPH = " graph"
SCALE = Scale(images=6_400)
READY = 16  # batches of the bare loop, which uses them in turn


class Speeds:
    """Images per second of the steps' loops, each compared with a bare loop in the same rounds."""

    def __init__(self, numerics: Numerics, device: torch.device) -> None:
        self._numerics, self._device = numerics, device

    @cached_property
    def _data(self) -> TrainingData:
        return random_data(SCALE, self._device)

    @cached_property
    def _teachers(self) -> list[Teacher]:
        return random_teachers(SCALE, self._data)

    @cached_property
    def _bare(self) -> Callable[[], None]:
        epoch = bare(SCALE, self._data, self._numerics)
        epoch()
        return epoch

    def labels(self, names: list[str]) -> Iterator[str]:
        """What is measured: each step of the cases, as it is and as CUDA graphs, and the loops of
        others, which have no mixed precision."""
        for name in names:
            for step, kind in product(steps_of(name), ("", GRAPH)):
                yield f"{name} {step}{kind}"
        if not self._numerics.mixed:
            yield from loops.STEPS

    def of(self, label: str) -> dict[str, Any]:
        """images/s, time as a multiple of the bare loop's in the same round (medians of the
        rounds), peak memory."""
        epoch, device = self._epoch(label), self._device
        epoch()
        torch.cuda.reset_peak_memory_stats(device)
        pairs = [(timed(self._bare, device), timed(epoch, device)) for _ in range(ROUNDS)]
        return {
            "images/s": round(median(ours for _, ours in pairs)),
            "bare images/s": round(median(plain for plain, _ in pairs)),
            "time / bare": round(median(plain / ours for plain, ours in pairs), 2),
            "peak MiB": round(torch.cuda.max_memory_allocated(device) / 2**20),
        }

    def _epoch(self, label: str) -> Callable[[], object]:
        if label in loops.STEPS:
            return loops.epoch(label, SCALE, self._data.train, self._teachers[0].model)
        name, step = label.removesuffix(GRAPH).rsplit(" ", 1)
        if name == TEACHER:
            graph = label.endswith(GRAPH)
            return small_work(name, step, SCALE, self._device, self._numerics, graph=graph).epoch
        settings, own = config(name, SCALE, self._numerics), data_of(name, self._data)
        return work(settings, own, self._teachers, step, graph=label.endswith(GRAPH)).epoch


def timed(epoch: Callable[[], object], device: torch.device) -> float:
    """Images per second."""
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    epoch()
    torch.cuda.synchronize(device)
    return SCALE.images / (time.perf_counter() - began)


def bare(scale: Scale, data: TrainingData, numerics: Numerics) -> Callable[[], None]:
    """An epoch of the student with plain cross-entropy, on images that lie ready on the device."""
    ready, device = work(config("CE", scale, numerics), data, []), data.train.device
    student, optimiser, views = ready.state.student, ready.state.optimiser, ready.step.inputs.views
    ready_batches = min(READY, scale.images // scale.batch)
    rows = torch.arange(ready_batches * scale.batch, device=device).view(-1, scale.batch)
    batches = [views.batch(row) for row in rows]
    labels = torch.arange(scale.batch, device=device) % CLASSES

    def epoch() -> None:
        student.train()
        for i in range(scale.images // scale.batch):
            with numerics.autocast(device):
                loss = F.cross_entropy(student(batches[i % len(batches)]), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return epoch
