"""Checks and speeds of every rung, method and switch on a GPU.

    python -m benchmarks.gpu [--json FILE] [--only checks] [--cases CE,KD,L2]

Checks: waits of the host and launches in a step; loss terms compared with the CPU's; the same bits
twice, after an interruption, and with the steps as CUDA graphs. Speeds: images per second of each
step's loop, and of the same as CUDA graphs, compared with a bare loop (resnet8x4 from two
resnet32x4, 32 px). Needs torch alone, in any version from 2.11.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, speed
from benchmarks.gpu.cases import NAMES
from trainers.numerics import Numerics, use_repeatable_kernels

CUDA = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=("checks", "speeds"), help="one of both parts")
    parser.add_argument("--cases", default=",".join(NAMES), help="with commas")
    parser.add_argument(
        "--kernels",
        choices=("repeatable", "fastest"),
        default="repeatable",
        help="fastest: as torch chooses them, with TF32",
    )
    options = parser.parse_args()
    names = options.cases.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"--cases: unknown {', '.join(unknown)} (allowed: {', '.join(NAMES)})")
    if not torch.cuda.is_available():
        parser.error("this machine has no GPU that torch can use")
    if options.kernels == "repeatable":
        use_repeatable_kernels()
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "card": torch.cuda.get_device_name(CUDA),
        "torch": torch.__version__,
        "kernels": options.kernels,
    }
    print(found, flush=True)
    if options.only != "speeds":
        found["checks"] = {}
        for name in names:
            found["checks"][name] = row = checks.report(name, Numerics(), CUDA)
            print(name.ljust(16), row, flush=True)
            save(options.json, found)
    if options.only != "checks":
        for precision in ("float32", "bfloat16"):
            found[precision] = {}
            for name, row in speed.compare(names, Numerics(precision=precision), CUDA):
                found[precision][name] = row
                print(precision, name.ljust(16), row, flush=True)
                save(options.json, found)


def save(path: Path | None, found: dict[str, Any]) -> None:
    """Write the figures so far."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


main()
