"""How long the threads of a run should spin while they wait for each other, on a CPU.

    python -m benchmarks.waiting [--network resnet8] [--pixels 16] [--batch 128] [--threads N]

prints the speed of a step of plain cross-entropy for several settings of libgomp, the OpenMP of
torch on Linux: of a run that is alone, of two on the same cores with all threads each, and of two
with half of the threads each.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from benchmarks.shown import spread, table
from benchmarks.together import WARM_UP, Processes
from pipeline import SPINS
from trainers.models import registry

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SETTINGS: dict[str, dict[str, str]] = {
    "sleep at once": {"GOMP_SPINCOUNT": "0"},
    f"{SPINS} spins, as runs do": {"GOMP_SPINCOUNT": SPINS},
    "20000 spins": {"GOMP_SPINCOUNT": "20000"},
    "300000 spins, libgomp's default": {"GOMP_SPINCOUNT": "300000"},
}
CAPTION = """\
Steps of {network} at {pixels} px, batches of {batch}, a second and run; {steps} steps a round, \
{rounds} rounds, interleaved; median (least … largest)."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--network", default="resnet8", choices=registry.names(), metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for name, number in {"pixels": 16, "batch": 128, "steps": 20, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    half = max(1, given.threads // 2)
    cases = {
        "alone": (1, given.threads),
        f"two with {given.threads} threads": (2, given.threads),
        f"two with {half}": (2, half),
    }
    rows = [[name, *_speeds(given, cases, setting)] for name, setting in SETTINGS.items()]
    print(table(CAPTION.format(**vars(given)), ["", *cases], rows))


def _speeds(
    given: argparse.Namespace, cases: dict[str, tuple[int, int]], setting: dict[str, str]
) -> list[str]:
    """Steps a second and run in every case, under a setting of the environment."""
    rounds: list[list[float]] = [[] for _ in cases]
    with _environment(setting), ExitStack() as stack:
        groups = [
            stack.enter_context(
                Processes(
                    argparse.Namespace(
                        **vars(given) | {"students": count, "threads": threads, "device": "cpu"}
                    )
                )
            )
            for count, threads in cases.values()
        ]
        for _ in range(WARM_UP + given.rounds):
            for group, seconds in zip(groups, rounds, strict=True):
                seconds.append(group.round())
    return [spread([given.steps / s for s in seconds[WARM_UP:]], 1) for seconds in rounds]


@contextmanager
def _environment(setting: dict[str, str]) -> Iterator[None]:
    """Start processes with this setting."""
    before = {name: os.environ.pop(name) for name in NAMES if name in os.environ}
    os.environ.update(setting)
    try:
        yield
    finally:
        for name in setting:
            del os.environ[name]
        os.environ.update(before)


if __name__ == "__main__":
    main()
