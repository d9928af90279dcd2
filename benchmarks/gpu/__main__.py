"""Checks and speeds of every rung, switch and method on a GPU.

    python -m benchmarks.gpu [--json FILE] [--minutes 8] [--only checks] [--cases CE,KD,L2]

Checks: waits of the host and launches in a step; loss terms compared with the CPU's; the same bits
twice, after an interruption, and with the steps as CUDA graphs. Speeds: images per second of each
step's loop, and of the same as CUDA graphs, compared with a bare loop and with loops that load
images and run the teacher in every step (resnet8x4 from resnet32x4, 32 px); several runs at once.

Needs torch alone, in any version from 2.11. What does not fit in the minutes is named at the end.
Without --cases, speeds are those of CE, KD, L2, L3 and crd, which are checked first too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import at_once, checks, speed
from benchmarks.gpu.cases import NAMES
from benchmarks.shown import table
from trainers.numerics import Numerics, use_repeatable_kernels

CUDA = torch.device("cuda")
MAIN = ("CE", "KD", "L2", "L3", "crd")
SCALED = ("L3", "kd")  # cases that are repeated in float16 too, with its gradient scaler
AT_ONCE = ("KD", "L2")
MINUTES = 8.0
Task = tuple[tuple[str, str], Callable[[], dict[str, Any]]]  # (part, name) and its figures


def main() -> None:
    options = parse()
    if not torch.cuda.is_available():
        raise SystemExit("this machine has no GPU that torch can use")
    if options.kernels == "repeatable":
        use_repeatable_kernels()
    began = time.monotonic()
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "card": torch.cuda.get_device_name(CUDA),
        "torch": torch.__version__,
        "kernels": options.kernels,
    }
    print(found, flush=True)
    left_out, failed = list[str](), list[str]()
    for (part, name), figures in tasks(options.cases, options.only):
        if time.monotonic() - began > 60 * options.minutes:
            left_out.append(f"{part} of {name}")
            continue
        try:
            row = figures()
        except Exception as error:  # noqa: BLE001 - said here and at the end; the others are done
            traceback.print_exc()
            row = {"error": repr(error)}
            failed.append(f"{part} of {name}")
        found.setdefault(part, {})[name] = row
        print(f"{time.monotonic() - began:4.0f} s", part, name, row, flush=True)
        save(options.json, found)
    found |= {"minutes": round((time.monotonic() - began) / 60, 1), "left out": left_out}
    save(options.json, found)
    print(*shown(found), sep="\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def parse() -> argparse.Namespace:
    """Options of the command line. `cases`: None where none were chosen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing after these")
    parser.add_argument("--only", choices=("checks", "speeds"), help="one of both parts")
    parser.add_argument("--cases", help="with commas")
    parser.add_argument(
        "--kernels",
        choices=("repeatable", "fastest"),
        default="repeatable",
        help="fastest: as torch chooses them, with TF32",
    )
    options = parser.parse_args()
    if options.cases is not None:
        options.cases = options.cases.split(",")
        if unknown := [name for name in options.cases if name not in NAMES]:
            parser.error(f"--cases: unknown {', '.join(unknown)} (allowed: {', '.join(NAMES)})")
    return options


def tasks(cases: list[str] | None, only: str | None) -> Iterator[Task]:
    """What is to be done, the most important first."""
    chosen = list(MAIN) if cases is None else cases
    others = [name for name in NAMES if name not in chosen] if cases is None else []

    def checked(names: list[str]) -> Iterator[Task]:
        for name in names:
            yield ("checks", name), lambda name=name: checks.report(name, Numerics(), CUDA)

    if only != "speeds":
        yield from checked(chosen)
        for name in SCALED:
            half = Numerics("float16")
            yield (
                ("float16", name),
                lambda name=name, half=half: checks.repeatable(name, half, CUDA),
            )
    if only != "checks":
        for precision in ("float32", "bfloat16"):
            numerics = Numerics(precision)
            measure = speed.Speeds(numerics, CUDA)
            for label in measure.labels(chosen):
                yield (
                    (precision, label),
                    lambda label=label, measure=measure: measure.of(label),
                )
        for name in AT_ONCE:
            yield ("at once", name), lambda name=name: at_once.compare(name, CUDA)
    if only != "speeds":
        yield from checked(others)


def shown(found: dict[str, Any]) -> Iterator[str]:
    """Each part as a table, and what was left out."""
    for part, rows in found.items():
        if not isinstance(rows, dict):
            continue
        head = list(dict.fromkeys(key for row in rows.values() for key in row))
        head = [key for key in head if not key.startswith(("lines", "error"))]
        cells = [
            [name, *("" if row.get(key) is None else _cell(row[key]) for key in head)]
            for name, row in rows.items()
        ]
        yield table(f"{part}, {found['card']}, torch {found['torch']}", ["", *head], cells)
    if found["left out"]:
        yield f"Left out, as the minutes were over: {', '.join(found['left out'])}."


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(path: Path | None, found: dict[str, Any]) -> None:
    """Write the figures so far."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
