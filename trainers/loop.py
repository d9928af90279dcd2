"""What the training loops share: the steps of an epoch, positions, averages, validation.

An epoch is a pure function of (state, seed, epoch). Nothing in the loop waits for the device:
metrics add up there and are read once an epoch.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainers import losses, metrics
from trainers.errors import Interrupted
from trainers.rng import seed_global, stream_seed
from trainers.step_graph import Graphs, Runner, Step

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class NonFinite(ArithmeticError):
    """A loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """What a trainer yields: global index, stage (1…), step "A" or "B", and the metrics."""

    index: int
    stage: int
    step: str
    metrics: dict[str, float]


class Terms(NamedTuple):
    """Weighted loss terms that the loop adds up, and unweighted things worth logging."""

    losses: dict[str, Tensor]
    seen: dict[str, Tensor]


@dataclass
class Progress:
    """Where a trainer is, complete enough to go on bit for bit. Part of every state."""

    slot: int = 0  # index into the plan of epochs
    step: int = 0  # optimiser steps done in this epoch
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch's steps so far
    seconds: float = 0.0  # spent in this epoch's steps so far
    autocast_off: bool = False  # set once, after a non-finite value
    done: bool = False

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block with the model in evaluation mode; every layer's own mode is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def nothing(step: int) -> None:
    """Nothing to do before or after a step."""


def run_steps(
    progress: Progress,
    steps: int,
    step: Step,
    stop: Callable[[], bool],
    stream: tuple[int, str, *tuple[str | int, ...]],
    *,
    before: Callable[[int], None] = nothing,
    after: Callable[[int], None] = nothing,
    graphs: Graphs | None = None,
) -> dict[str, float]:
    """Run the rest of an epoch's steps; give the mean of each value and `steps_seconds`.

    `stream` = (seed, purpose, …) is where a step's own draws (dropout, the latent) come from. With
    `graphs` most steps are one launch each: then `step` is called with an index on the device.
    What a step needs of the host is done `before` and `after` it, with its number.

    Raises:
        Interrupted: `stop()` was true at a step boundary; `progress` holds the position.
        NonFinite: a sum is not finite.
    """
    began = time.perf_counter()
    runner = graphs.runner(step, steps, stream[1]) if graphs else Runner(step)
    with graphs.stream() if graphs else nullcontext():
        while progress.step < steps and not stop():
            before(progress.step)
            seed_global(stream_seed(*stream, progress.step))
            runner.run(progress.step)
            after(progress.step)
            progress.step += 1
        for name, value in runner.sums().items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.seconds += time.perf_counter() - began
    bad = [n for n, v in progress.sums.items() if not torch.isfinite(torch.tensor(v))]
    if bad:
        raise NonFinite(f"{', '.join(bad)} is not finite")
    if progress.step < steps:
        raise Interrupted
    means = {name: total / steps for name, total in progress.sums.items()}
    means["steps_seconds"] = progress.seconds
    if graphs:
        means[metrics.GRAPH_STEPS] = runner.replayed / steps
    progress.step, progress.sums, progress.seconds = 0, {}, 0.0
    return means


def check_finite(*modules: nn.Module) -> None:
    """Raise `NonFinite` if a weight of a module is not a finite number (one wait in all)."""
    tensors = [t for m in modules for t in m.state_dict().values() if t.is_floating_point()]
    if tensors and not bool(torch.stack([t.sum() for t in tensors]).isfinite().all()):
        raise NonFinite("a weight is not finite")


def top1(logits_BC: Tensor, labels_B: Tensor) -> float:
    """Share of rows whose largest logit is the label's."""
    return float((logits_BC.argmax(1) == labels_B).float().mean())


def validation(logits_BC: Tensor, labels_B: Tensor) -> dict[str, float]:
    """Validation accuracy and cross-entropy; nothing where there are no images."""
    if not len(labels_B):
        return {}
    loss = losses.cross_entropy(logits_BC, labels_B).mean()
    return {metrics.VAL_TOP1: top1(logits_BC, labels_B), metrics.VAL_LOSS: float(loss)}


def right(logits_BC: Tensor, labels_XL: Tensor, share_X: Tensor) -> Tensor:
    """Share of correct predictions among the images with a label, the first L of the batch,
    weighted over the X labels that each of them shows. Scalar."""
    guess_L = logits_BC.detach()[: labels_XL.shape[1]].argmax(1)
    return ((guess_L == labels_XL).mean(1, dtype=torch.float32) * share_X).sum()


def keep_best(
    best: dict[str, Any], accuracy: float | None, epoch: int, model: nn.Module, select: str
) -> None:
    """Keep the weights of the best validation accuracy (the earliest of equals), or the last."""
    if select == "best" and best and accuracy is not None and accuracy <= best["top1"]:
        return
    best.update(top1=accuracy, epoch=epoch, weights=snapshot(model))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's tensors that training does not touch."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement, so that a stage does not inherit the peak of the one before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Peak device memory on a GPU, peak resident set of the process on a CPU; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        high_water = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if high_water:
            return int(high_water[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
