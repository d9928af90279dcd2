"""Checks of the steps on a GPU: waits, launches, agreement with the CPU, repeatability."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.cases import (
    TEACHER,
    Scale,
    config,
    data_of,
    random_data,
    random_teachers,
    read_by,
    small_work,
    steps_of,
    teacher_config,
)
from trainers.data import TrainingData
from trainers.distill import distill
from trainers.distillation.config import DistillConfig
from trainers.distillation.state import DistillState, Teacher
from trainers.errors import Interrupted
from trainers.finetune import FinetuneConfig, FinetuneState, finetune
from trainers.loop import Epoch
from trainers.numerics import Numerics
from trainers.step_graph import WARM, Graphs
from trainers.weight_digest import weights_digest

SMALL = Scale("resnet8", "resnet20", images=512, batch=64, views=2, epochs=4)


LAUNCHES = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
)


def report(name: str, numerics: Numerics, device: torch.device) -> dict[str, Any]:
    """All checks of a case."""
    row: dict[str, Any] = {}
    for step in steps_of(name):
        row[f"waits {step}"], row[f"lines that wait {step}"] = waits(name, step, device)
        row[f"launches {step}"] = launches(name, step, device)
        row[f"launches of a graph {step}"] = launches(name, step, device, graph=True)
    row["relative to CPU"] = relative_to_cpu(name, device)
    return row | repeatable(name, numerics, device)


def slope(count: Callable[[int], int], few: int = 3, many: int = 8) -> float:
    """What a step adds to a count of a whole epoch."""
    return (count(many) - count(few)) / (many - few)


def waits(name: str, step: str, device: torch.device) -> tuple[float, list[str]]:
    """Waits of the host in a step, and the lines of an epoch that wait."""
    where: list[str] = []

    def of_epoch(steps: int) -> int:
        scale = replace(SMALL, images=SMALL.batch * steps)
        ready = small_work(name, step, scale, device)
        ready.epoch()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                ready.epoch()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found = [w for w in caught if "synchronizing" in str(w.message)]
        where[:] = sorted({f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in found})
        return len(found)

    return slope(of_epoch), where


def launches(name: str, step: str, device: torch.device, *, graph: bool = False) -> float:
    """Kernels and graphs that the host launches in a step."""

    def of_epoch(steps: int) -> int:
        scale = replace(SMALL, images=SMALL.batch * steps)
        ready = small_work(name, step, scale, device, graph=graph)
        ready.epoch()
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        ) as profile:
            ready.epoch()
            torch.cuda.synchronize()
        return sum(one.count for one in profile.key_averages() if one.key in LAUNCHES)

    return slope(of_epoch, 16, 56) if graph else slope(of_epoch)


def run(
    settings: DistillConfig | FinetuneConfig,
    data: TrainingData,
    teachers: list[Teacher],
    stop_at: tuple[int, int] | None = None,
    *,
    graph: bool = False,
) -> tuple[list[dict[str, float]], float]:
    """Metrics of every epoch and the digest of the network that learned; `stop_at` (slot, step):
    interrupted there, saved, and resumed by a new state; `graph`: its steps are CUDA graphs."""

    def new_state() -> DistillState | FinetuneState:
        state = _state(settings, data, teachers)
        state.graphs = Graphs(data.train.device) if graph else None
        return state

    state, found = new_state(), []
    if stop_at is not None:
        state.stop = lambda: (state.progress.slot, state.progress.step) == stop_at
        try:
            found += [epoch.metrics for epoch in _epochs(settings, data, teachers, state)]
            raise AssertionError("the run was not interrupted")
        except Interrupted:
            saved = state.state_dict()
        found = found[: saved["progress"]["slot"]]
        state = new_state()
        state.load_state_dict(saved)
    found += [epoch.metrics for epoch in _epochs(settings, data, teachers, state)]
    learned = state.model if isinstance(state, FinetuneState) else state.student
    return found, weights_digest(learned)


def _state(
    settings: DistillConfig | FinetuneConfig, data: TrainingData, teachers: list[Teacher]
) -> DistillState | FinetuneState:
    if isinstance(settings, FinetuneConfig):
        return FinetuneState.new(settings, data.train.device)
    return DistillState.new(settings, data, read_by(settings, teachers))


def _epochs(
    settings: DistillConfig | FinetuneConfig,
    data: TrainingData,
    teachers: list[Teacher],
    state: DistillState | FinetuneState,
) -> Iterator[Epoch]:
    if isinstance(settings, FinetuneConfig):
        assert isinstance(state, FinetuneState)
        return finetune(settings, data, state)
    assert isinstance(state, DistillState)
    return distill(settings, data, read_by(settings, teachers), state)


def settings_of(
    name: str, scale: Scale, numerics: Numerics | None = None, **method: Any
) -> DistillConfig | FinetuneConfig:
    """The configuration of any case."""
    if name == TEACHER:
        return teacher_config(scale, numerics)
    return config(name, scale, numerics, **method)


def relative_to_cpu(name: str, device: torch.device) -> float:
    """Largest relative difference of a loss term between this device and the CPU in the first two
    epochs of float32 without TF32. Without draws on the device (dropout, latent), whose numbers
    differ by device; crd draws its negatives there: its figure is of two samples."""
    fixed = {"dropout": 0.0, "a_step_sample": False} if steps_of(name) == "AB" else {}
    scale = replace(SMALL, images=256)
    settings = settings_of(name, scale, **fixed)
    both = []
    for place in (torch.device("cpu"), device):
        data = data_of(name, random_data(scale, place))
        teachers = random_teachers(scale, data)
        epochs = _epochs(settings, data, teachers, _state(settings, data, teachers))
        both.append([next(epochs).metrics for _ in range(2)])
    return max(
        abs(a[key] - b[key]) / max(abs(a[key]), 1e-3)
        for a, b in zip(*both, strict=True)
        for key in a
        if key.startswith("train/loss")
    )


def repeatable(name: str, numerics: Numerics, device: torch.device) -> dict[str, bool]:
    """Whether a run gives the same bits twice, when it is interrupted in the middle of an epoch and
    resumed, with its steps as CUDA graphs, and with both."""
    data = data_of(name, random_data(SMALL, device))
    settings, teachers = settings_of(name, SMALL, numerics), random_teachers(SMALL, data)
    _, first = run(settings, data, teachers)
    ways: dict[str, dict[str, Any]] = {
        "same twice": {},
        "same resumed": {"stop_at": (2, 3)},
        "same as graphs": {"graph": True},
        "same as graphs, resumed": {"stop_at": (2, WARM + 2), "graph": True},
    }
    return {way: first == run(settings, data, teachers, **how)[1] for way, how in ways.items()}
