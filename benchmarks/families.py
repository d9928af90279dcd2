"""Which families of timm's networks can be trained here, at which sizes: `python -m
benchmarks.families` tries the smallest network of each and writes docs/networks.md (half an hour).

Nothing is downloaded: the networks are built without weights, and run on torch's meta device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from trainers import models
from trainers.models import TIMM_PREFIX

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
SIZES, CLASSES = (8, 16, 32, 64), 10
MARK = "<!-- The rows below are made by `python -m benchmarks.families`. -->"
HEAD = "| Family | Network | Pixels | With feature maps | Grey |\n| --- | --- | --- | --- | --- |"
NONE = "none"
LARGE = 10**7  # parameters that count as many where a network cannot be built on the meta device


class Family(NamedTuple):
    """A family, its smallest network, the sizes at which it works in colour without and with
    feature maps, and whether the largest of them works in grey."""

    name: str
    network: str
    plain: tuple[int, ...]
    maps: tuple[int, ...]
    grey: bool

    def row(self) -> str:
        sizes = " | ".join(", ".join(map(str, one)) or NONE for one in (self.plain, self.maps))
        grey = ("yes" if self.grey else "no") if self.plain else NONE
        return f"| {self.name} | `{TIMM_PREFIX}{self.network}` | {sizes} | {grey} |"


def families() -> dict[str, list[str]]:
    """The names of timm's networks by family, which is the module that they are in."""
    found = defaultdict(list)
    for name in timm.list_models():
        found[timm.models._registry._model_to_module[name]].append(name)
    return dict(sorted(found.items()))


def smallest(names: list[str]) -> str:
    """The network of the fewest parameters."""
    return min(names, key=lambda name: (_parameters(name), name))


def _parameters(name: str) -> int:
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name).parameters())
    except (NotImplementedError, RuntimeError, ValueError):
        return LARGE


def tried(name: str, network: str) -> Family:
    """A family by the trials of its network."""

    def works(size: int, channels: int = 3, maps: bool = False) -> bool:
        return not models.trial(f"{TIMM_PREFIX}{network}", CLASSES, size, channels, maps=maps).fault

    plain = tuple(size for size in SIZES if works(size))
    maps = tuple(size for size in plain if works(size, maps=True))
    return Family(name, network, plain, maps, bool(plain) and works(plain[-1], channels=1))


def read() -> Iterator[Family]:
    """The rows of the page."""
    for line in PAGE.read_text(encoding="utf-8").partition(MARK)[2].strip().splitlines()[2:]:
        name, network, plain, maps, grey = (cell.strip() for cell in line.strip("|").split("|"))
        network = network.strip("`").removeprefix(TIMM_PREFIX)
        yield Family(name, network, _sizes(plain), _sizes(maps), grey == "yes")


def _sizes(cell: str) -> tuple[int, ...]:
    return () if cell == NONE else tuple(map(int, cell.split(",")))


def write(rows: list[str]) -> None:
    """Put the rows below the text of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text("\n".join([f"{text}{MARK}\n\n{HEAD}", *rows, ""]), encoding="utf-8")


def main() -> None:
    """Try all families and write their rows."""
    rows = []
    for name, names in families().items():
        rows.append(tried(name, smallest(names)).row())
        print(rows[-1], flush=True)
    write(rows)


if __name__ == "__main__":
    main()
