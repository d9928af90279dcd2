"""Several students at once on one device: what is the fastest way?

    python -m benchmarks.together [--network resnet8] [--pixels 14] [--batch 128] [--students 8]

A step is forward, backward and SGD of plain cross-entropy. The ways: one student after another;
all in one process as one network whose weights are stacked (torch.func), so that a convolution is
one with groups; and a process for each, at the same time. Gradients of the stacked network are
compared with those of each student alone.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.shown import ratios, spread, table
from trainers.models import registry

CLASSES, CHANNELS, LR = 10, 3, 0.01  # channels: as networks are built
WARM_UP = 2
CAPTION = """\
Steps of {students} students {network} at {pixels} px, batches of {batch}, on {device}; {steps} \
steps a round, {rounds} rounds, interleaved; median (least … largest). The largest difference of a \
gradient of the stacked network in float64, relative to the largest of its tensor: \
{difference:.0e}."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.together", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--network", default="resnet8", choices=registry.names(), metavar="NAME")
    for name, number in {
        "pixels": 14,
        "batch": 128,
        "students": 8,
        "steps": 5,
        "rounds": 5,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu", choices=("cuda", "cpu"))
    given = parser.parse_args()
    given.threads = 1
    if given.device == "cpu":
        torch.set_num_threads(given.threads)
    nets, images, labels = students(given)
    facts = vars(given) | {"difference": difference(nets, images, labels)}
    ways = {
        "one after another": one_by_one(nets, images, labels),
        "stacked": stacked(nets, images, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in [*ways, "a process each"]}
    with Processes(given) as processes:
        for _ in range(WARM_UP + given.rounds):
            for name, one in ways.items():
                began = _clock(given.device)
                for _turn in range(given.steps):
                    one()
                seconds[name].append(_clock(given.device) - began)
            seconds["a process each"].append(processes.round())
    seconds = {name: values[WARM_UP:] for name, values in seconds.items()}
    base = seconds["one after another"]
    rows = [
        [
            name,
            spread([given.students * given.steps / s for s in values], 0),
            spread(ratios(base, values)),
        ]
        for name, values in seconds.items()
    ]
    print(table(CAPTION.format(**facts), ["", "steps/s", "speed / one after another"], rows))


def students(given: argparse.Namespace) -> tuple[list[nn.Module], Tensor, Tensor]:
    """Students S, images [S, B, C, H, W] and labels [S, B], each its own."""
    torch.manual_seed(0)
    build = registry.build
    nets = [build(given.network, CLASSES, given.pixels) for _ in range(given.students)]
    shape = (given.students, given.batch, CHANNELS, given.pixels, given.pixels)
    images = torch.randn(shape, device=given.device)
    labels = torch.randint(0, CLASSES, shape[:2], device=given.device)
    return [net.to(given.device).train() for net in nets], images, labels


def one_by_one(nets: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of each student, in turn."""

    def step() -> None:
        for number, net in enumerate(nets):
            _train(net, images[number], labels[number])

    return step


def _train(net: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> None:
    weights: list[Tensor] = list(net.parameters())
    loss = F.cross_entropy(net(images_BCHW), labels_B)
    with torch.no_grad():
        torch._foreach_add_(weights, torch.autograd.grad(loss, weights), alpha=-LR)


def stacked_gradient(
    nets: list[nn.Module],
) -> tuple[dict[str, Tensor], Callable[[Tensor, Tensor], dict[str, Tensor]]]:
    """The stacked weights, and what gives their gradients for stacked images and labels."""
    shape = copy.deepcopy(nets[0])
    for module in shape.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None  # a number that counts up cannot be stacked
    weights, buffers = stack_module_state(nets)
    weights = {name: value.detach() for name, value in weights.items()}
    buffers = {name: b for name, b in buffers.items() if b.is_floating_point()}

    def loss(weights: Any, buffers: Any, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        logits = functional_call(shape, (weights, buffers), (images_BCHW,))
        return F.cross_entropy(logits, labels_B)

    each = vmap(grad(loss))
    return weights, lambda images, labels: each(weights, buffers, images, labels)


def stacked(nets: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step of all students as one network."""
    weights, gradient = stacked_gradient(nets)

    def step() -> None:
        found = gradient(images, labels)
        torch._foreach_add_([*weights.values()], [found[name] for name in weights], alpha=-LR)

    return step


def difference(nets: list[nn.Module], images: Tensor, labels: Tensor) -> float:
    """The largest difference between stacked gradients and those of each alone, in float64: in
    float32 rounding decides now and then on which side of zero the input of a ReLU is."""
    nets, images = [copy.deepcopy(net).double() for net in nets], images.double()
    _, gradient = stacked_gradient(nets)
    together, largest = gradient(images, labels), 0.0
    for number, net in enumerate(nets):
        named = dict(net.named_parameters())
        loss = F.cross_entropy(net(images[number]), labels[number])
        found = torch.autograd.grad(loss, [*named.values()])
        for name, alone in zip(named, found, strict=True):
            off = (together[name][number] - alone).abs().max() / alone.abs().max()
            largest = max(largest, float(off))
    return largest


class Processes:
    """A process for each student; all run the steps of a round at the same time."""

    def __init__(self, given: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._barrier = context.Barrier(given.students + 1)
        work = (given, self._barrier, WARM_UP + given.rounds)
        self._all = [context.Process(target=_work, args=work) for _ in range(given.students)]

    def __enter__(self) -> Processes:
        for one in self._all:
            one.start()
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._all:
            one.join(10) if error[0] is None else one.kill()

    def round(self) -> float:
        """Seconds until all have run their steps."""
        self._barrier.wait()
        began = time.perf_counter()
        self._barrier.wait()
        return time.perf_counter() - began


def _work(given: argparse.Namespace, barrier: Any, rounds: int) -> None:
    if given.device == "cpu":
        torch.set_num_threads(given.threads)
    (net, *_), images, labels = students(argparse.Namespace(**vars(given) | {"students": 1}))
    for _ in range(rounds):
        barrier.wait()
        for _ in range(given.steps):
            _train(net, images[0], labels[0])
        if given.device == "cuda":
            torch.cuda.synchronize()
        barrier.wait()


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
