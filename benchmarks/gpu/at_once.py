"""Several runs at once on one GPU, a process each, next to one alone: speed, and the same bits.

Without an MPS daemon (`nvidia-cuda-mps-control -d`) processes take turns on a GPU.
"""

from __future__ import annotations

import time
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.gpu.cases import Scale, config, random_data, random_teachers, work
from trainers.numerics import use_repeatable_kernels
from trainers.weight_digest import weights_digest

SPAWN = get_context("spawn")
RUNS, EPOCHS = 8, 3
START_S = 180.0  # most seconds until all processes are ready
SCALE = Scale(images=6_400)


def compare(
    name: str, device: torch.device, runs: int = RUNS, scale: Scale = SCALE
) -> dict[str, Any]:
    """Images per second of one run alone, and of `runs` at once with seeds of their own; whether
    the first of these has the bits of the one that was alone."""
    (alone,) = _at_once(name, device, 1, scale)
    together = _at_once(name, device, runs, scale)
    speed = sum(images for images, _ in together)
    return {
        "runs": runs,
        "images/s alone": round(alone[0]),
        "images/s at once": round(speed),
        "speed / one after another": round(speed / alone[0], 2),
        "same as alone": alone[1] == together[0][1],
        "students": len({digest for _, digest in together}),
    }


def _at_once(name: str, device: torch.device, runs: int, scale: Scale) -> list[tuple[float, float]]:
    """(images/s, digest of the student) of every run."""
    barrier, results = SPAWN.Barrier(runs), SPAWN.Queue()
    each = [
        SPAWN.Process(target=_run, args=(seed, name, device, scale, barrier, results), daemon=True)
        for seed in range(runs)
    ]
    for one in each:
        one.start()
    try:
        found = dict(results.get(timeout=START_S) for _ in each)
    finally:
        for one in each:
            one.join(10)
            one.kill()
    return [found[seed] for seed in range(runs)]


def _run(
    seed: int, name: str, device: torch.device, scale: Scale, barrier: Any, results: Any
) -> None:
    """Train epochs of a case's B-Step, as CUDA graphs on a GPU, at the same time as the others."""
    use_repeatable_kernels()
    torch.set_num_threads(1)
    on_gpu = device.type == "cuda"
    data = random_data(scale, device)
    settings = replace(config(name, scale), seed=seed)
    ready = work(settings, data, random_teachers(scale, data), graph=on_gpu)
    ready.epoch()
    barrier.wait(START_S)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        ready.epoch()
    digest = weights_digest(ready.state.student)  # waits for the GPU
    images = EPOCHS * scale.images / (time.perf_counter() - began)
    results.put((seed, (images, digest)))
