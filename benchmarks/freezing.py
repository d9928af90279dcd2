"""What partial freezing saves: trainable fraction, step time and memory at every level.

    python -m benchmarks.freezing [--models resnet152,mobilenet_v2] [--batch 32] [--device cpu]

prints a table a network: one optimiser step (AdamW, BatchNorm of frozen blocks frozen too) on
random images of 32 pixels. All levels take turns on the same weights in one process, so that only
ratios within a round count.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.setting import device_name
from benchmarks.shown import WIDTH, ratios, spread, table
from trainers import models
from trainers.loop import peak_memory_mb, reset_peak_memory
from trainers.models import freezing

MODELS, CLASSES, IMAGE = ("resnet152", "mobilenet_v2"), 100, 32
CAPTION = """\
{name}, batch {batch}: a step at each level (-1: everything learns, 0: the head, n: the last n \
blocks and the head). Learns: share of the parameters, requested and real. Time: of the step at \
level -1, {rounds} rounds, interleaved; median (least … largest). Memory: MiB, {memory}."""
MEASURED = "peak of the device's allocator during the step"
COUNTED = (
    "counted: weights, gradients, AdamW's moments, and what autograd keeps (maps that pass are not)"
)

Step = Callable[[], Tensor]  # runs one step and gives its loss


def main() -> None:
    options = parse()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    threads = torch.get_num_threads()
    used = f"Device: {device_name(device)}, {threads} CPU threads; torch {torch.__version__}."
    print(textwrap.fill(used, WIDTH))
    for name in options.models.split(","):
        print("\n" + compare(name, options.batch, device, options.rounds), flush=True)


def compare(name: str, batch: int, device: torch.device, rounds: int) -> str:
    """The table of one network."""
    model = models.build(name, CLASSES, IMAGE).to(device)
    levels = range(-1, len(models.block_parameters(model)))
    images_BCHW = torch.randn(batch, 3, IMAGE, IMAGE, device=device)
    labels_B = torch.arange(batch, device=device) % CLASSES
    seconds: dict[int, list[float]] = {level: [] for level in levels}
    memory, learns = {}, {}
    for turn in range(rounds):
        for level in sorted(levels, key=lambda n: (n - turn) % len(levels)):
            step = one_step(model, level, images_BCHW, labels_B)
            learns[level] = freezing.fraction(model)
            step()  # the first makes the optimiser's moments
            seconds[level].append(timed(step, device))
            memory[level] = memory.get(level) or peak_memory(model, step, device)
    rows = [
        [
            str(level),
            f"{freezing.requested_fraction(model, level):.4f}",
            f"{learns[level]:.4f}",
            spread(ratios(seconds[level], seconds[-1])),
            spread(seconds[level], 3),
            f"{memory[level]:.0f}",
            f"{memory[level] / memory[-1]:.2f}",
        ]
        for level in levels
    ]
    shown = MEASURED if device.type == "cuda" else COUNTED
    caption = CAPTION.format(name=name, batch=batch, rounds=rounds, memory=shown)
    head = ["level", "requested", "real", "time / level -1", "seconds", "memory", "/ level -1"]
    return table(caption, head, rows)


def one_step(model: nn.Module, level: int, images_BCHW: Tensor, labels_B: Tensor) -> Step:
    """A training step at a level, with an optimiser of its own."""
    model.zero_grad(set_to_none=True)
    freezing.set_level(model, level)
    freezing.train_mode(model, level, freeze_bn=True)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> Tensor:
        loss = F.cross_entropy(model(images_BCHW), labels_B)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def timed(step: Step, device: torch.device) -> float:
    """Seconds of a step, all that it asked of the device done."""
    synchronise(device)
    began = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(model: nn.Module, step: Step, device: torch.device) -> float:
    """MiB: the allocator's peak on a GPU. On a CPU, where a process does not give back what it
    once had, the bytes of the tensors that a step needs at once."""
    if device.type == "cuda":
        reset_peak_memory(device)
        step()
        return peak_memory_mb(device)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    bytes_of = [(p.nbytes, p.requires_grad) for p in model.parameters()]
    # Of what learns: gradient and two moments next to the weight.
    return (sum(kept.values()) + sum(n * (4 if learns else 1) for n, learns in bytes_of)) / 2**20


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freezing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", default=",".join(MODELS), help="of the registry, with commas")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--rounds", type=int, default=5, help="of all levels")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args()
    unknown = [n for n in options.models.split(",") if not models.exists(n)]
    if unknown:
        parser.error(
            f"--models: unknown {', '.join(unknown)} (allowed: {', '.join(models.names())})"
        )
    return options


if __name__ == "__main__":
    main()
