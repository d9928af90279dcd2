"""How measurements are printed: medians with their spread, in tables of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import median

WIDTH = 100


def ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    """Ratios within each round: what disturbs the machine for longer than a round cancels."""
    return [a / b for a, b in zip(upper, lower, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (least … largest)`."""
    middle, low, high = (f"{v:.{digits}f}" for v in (median(values), min(values), max(values)))
    return f"{middle} ({low} … {high})"


def at_least(target: float, values: Sequence[float]) -> str:
    """Whether the median meets a target, `≥ 0.90 yes`."""
    return f"≥ {target:.2f} {'yes' if median(values) >= target else 'no '}"


def at_most(target: float, values: Sequence[float]) -> str:
    """Whether the median meets a target, `≤ 1.25 yes`."""
    return f"≤ {target:.2f} {'yes' if median(values) <= target else 'no '}"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a caption: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        parts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([textwrap.fill(caption, WIDTH), "", line(head), rule, *map(line, rows), ""])
