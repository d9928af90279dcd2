"""Images per second of the steps, compared with a bare loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.cases import (
    CLASSES,
    Scale,
    config,
    data_of,
    random_data,
    random_teachers,
    steps_of,
    work,
)
from trainers.data import TrainingData
from trainers.numerics import Numerics

ROUNDS = 3
SCALE = Scale(images=6_400)
READY = 16  # batches of the bare loop, which uses them in turn


def compare(
    names: list[str], numerics: Numerics, device: torch.device
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(case and step, its figures): images/s, time as a multiple of the bare loop's in the same
    round (medians of the rounds), peak memory; then the same of steps that are CUDA graphs."""
    data = random_data(SCALE, device)
    teachers = random_teachers(SCALE, data)
    base = bare(SCALE, data, numerics)
    base()
    for name in names:
        for step, graph in product(steps_of(name), (False, True)):
            settings, own = config(name, SCALE, numerics), data_of(name, data)
            ready = work(settings, own, teachers, step, graph=graph)
            ready.epoch()
            torch.cuda.reset_peak_memory_stats(device)
            pairs = [(timed(base, device), timed(ready.epoch, device)) for _ in range(ROUNDS)]
            yield (
                f"{name} {step}{' graph' if graph else ''}",
                {
                    "images/s": round(median(ours for _, ours in pairs)),
                    "bare images/s": round(median(bare for bare, _ in pairs)),
                    "time / bare": round(median(bare / ours for bare, ours in pairs), 2),
                    "peak MiB": round(torch.cuda.max_memory_allocated(device) / 2**20),
                },
            )


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
