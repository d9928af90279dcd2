"""The ladder as one picture: what each rung gives against the best control, and at what cost.

Differences are fractions (drawn in points), paired by seed.
"""

import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import points
from analysis.claims import Comparison, Family
from analysis.figures import style
from analysis.ladder_numbers import label_of
from analysis.stats import Interval

_FAR = 8.0  # times the median reach of the rows
_ROW = 0.3  # inches
_FRAME = 1.4  # inches above and below the rows


class DifferenceRow(NamedTuple):
    """A rung less the control; `significant` is of its claim against each control, or, where that
    leaves this control out, of the two."""

    rung: str
    interval: Interval
    by_seed: tuple[float, ...]
    times: float
    significant: bool
    primary: bool


class DifferencesInfo(NamedTuple):
    """The rungs that have a seed in common with the control of a bench ("": none), in the order of
    the ladder."""

    bench: str
    control: str
    rows: tuple[DifferenceRow, ...]


def differences(found: Family) -> DifferencesInfo:
    """What is drawn of the claims of a bench."""
    rows = tuple(_row(found, one) for one in found.to_control if one.difference.interval.n)
    return DifferencesInfo(found.bench, found.control, rows)


def _row(found: Family, one: Comparison) -> DifferenceRow:
    claim, found_ = found.of(one.rung), one.difference
    primary = claim is not None and claim.primary
    if claim is not None and one.reference not in {c.reference for c in claim.comparisons}:
        claim = found.of(one.rung, one.reference)  # it leaves this control out
    significant = claim is not None and claim.significant
    return DifferenceRow(one.rung, found_.interval, found_.by_seed, one.times, significant, primary)


def draw_differences(info: DifferencesInfo) -> Figure:
    """A row a rung: its interval, the single seeds as ticks, and its time over the control's.

    A filled marker is a rung whose claim against all controls is significant. The interval of
    two seeds can leave the frame, and ends in an arrowhead there; a row that is far from all
    others is a number at the frame.
    """
    figure, axes = style.new_figure(
        f"{info.bench}: test top-1 less that of {label_of(info.control)}, the control",
        "points, paired by seed (bars: 95 % intervals, ticks: seeds, filled: significant)",
        "",
    )
    rows = info.rows
    figure.set_size_inches(style.WIDTH, _FRAME + _ROW * len(rows))
    axes.grid(visible=False)
    axes.axvline(0, color=style.BOUNDARY, linewidth=1.0, zorder=1)
    low, high = _view(rows)
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    looks = style.looks([row.rung for row in rows])
    for at, row in enumerate(rows):
        _draw_row(axes, at, row, looks[row.rung])
        _draw_beyond(axes, at, row, looks[row.rung].colour)
    return figure


def _draw_row(axes: Axes, at: int, row: DifferenceRow, look: style.Look) -> None:
    """Seeds, interval and cost of the row at this height."""
    axes.plot(
        [100 * one for one in row.by_seed],
        [at] * len(row.by_seed),
        linestyle="none",
        marker="|",
        markersize=7,
        color=look.colour,
        alpha=0.45,
        zorder=2,
    )
    axes.errorbar(
        [100 * row.interval.mean],
        [at],
        xerr=style.whiskers([row.interval], 100),
        fmt=look.marker,
        color=look.colour,
        markerfacecolor=look.colour if row.significant else "white",
        markersize=6,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )
    axes.annotate(
        _cost(row),
        (1.02, at),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=style.SMALL,
        color=style.TEXT,
        annotation_clip=False,
    )


def _draw_beyond(axes: Axes, at: int, row: DifferenceRow, colour: str) -> None:
    """What of a row is outside the frame: its mean as a number, which drawn would compress the
    other rows, else arrowheads for the ends of its interval (n = 1 has none)."""
    low, high = axes.get_xlim()
    mean = 100 * row.interval.mean
    if not low <= mean <= high:
        right = mean > high
        axes.annotate(
            f"{points(row.interval.mean)} →" if right else f"← {points(row.interval.mean)}",
            (high if right else low, at),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=style.SMALL,
            color=colour,
        )
        return
    ends = (
        (low, "<", 100 * row.interval.low < low),
        (high, ">", 100 * row.interval.high > high),
    )
    for frame, marker, beyond in ends:
        if beyond:
            axes.plot(
                [frame], [at], marker=marker, markersize=6, color=colour, clip_on=False, zorder=4
            )


def _label(row: DifferenceRow) -> str:
    return label_of(row.rung) + " (primary)" * row.primary


def _cost(row: DifferenceRow) -> str:
    n = f"n = {row.interval.n}"
    return n if math.isnan(row.times) else f"{row.times:.2f} × time, {n}"


def _view(rows: tuple[DifferenceRow, ...]) -> tuple[float, float]:
    usual = _FAR * float(np.median([_reach(row) for row in rows])) if rows else 0.0
    near = [row for row in rows if _reach(row) <= usual] or list(rows)
    single = [one for row in near for one in row.by_seed]
    return style.view([row.interval for row in near], 0.0, *single, scale=100)


def _reach(row: DifferenceRow) -> float:
    """How far a row's single seeds are from the control."""
    return max(map(abs, row.by_seed))
