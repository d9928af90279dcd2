"""The ladder as one picture: what each rung gives against the best control, and at what cost.

Differences are fractions (drawn in points), paired by seed.
"""

import math
from typing import NamedTuple

from matplotlib.figure import Figure

from analysis import style
from analysis.claims import Claim
from analysis.tables import LadderTable, best_control, rung_order

_ROW = 0.3  # inches
_FRAME = 1.4  # inches above and below the rows


class DifferencesInfo(NamedTuple):
    """The claims of a bench against its best control ("": none) that have a seed in common with
    it, in the order of the ladder."""

    bench: str
    control: str
    rows: tuple[Claim, ...]


def differences(table: LadderTable, bench: str, found: tuple[Claim, ...]) -> DifferencesInfo:
    """What of `found`, the claims of a bench, is drawn."""
    control = best_control(table, bench)
    if control is None:
        return DifferencesInfo(bench, "", ())
    of_rung = {c.rung: c for c in found if c.reference == control.rung and c.interval.n}
    return DifferencesInfo(
        bench, control.rung, tuple(of_rung[rung] for rung in rung_order(of_rung))
    )


def draw_differences(info: DifferencesInfo) -> Figure:
    """A row a rung: its interval, the single seeds as ticks, and its time over the control's.

    A filled marker is a difference that is shown at its family's level. The interval of two seeds
    may leave the frame.
    """
    figure, axes = style.new_figure(
        f"{info.bench}: test top-1 less that of {info.control}, the best control",
        "points, paired by seed (bars: 95 % intervals, ticks: seeds, filled: difference shown)",
        "",
    )
    rows = info.rows
    figure.set_size_inches(style.WIDTH, _FRAME + _ROW * len(rows))
    axes.grid(visible=False)
    axes.axvline(0, color=style.BOUNDARY, linewidth=1.0, zorder=1)
    looks = style.looks([row.rung for row in rows])
    for at, row in enumerate(rows):
        look, interval = looks[row.rung], row.interval
        axes.plot(
            [100 * one for one in row.differences], [at] * len(row.differences), linestyle="none",
            marker="|", markersize=7, color=look.colour, alpha=0.45, zorder=2,
        )  # fmt: skip
        axes.errorbar(
            [100 * interval.mean], [at], xerr=style.whiskers([interval], 100), fmt=look.marker,
            color=look.colour, markerfacecolor=look.colour if row.shown else "white",
            markersize=6, elinewidth=1.2, capsize=3, zorder=3,
        )  # fmt: skip
        axes.annotate(
            _cost(row), (1.01, at), xycoords=("axes fraction", "data"), va="center",
            fontsize=style.SMALL, color=style.TEXT, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*_view(rows))
    return figure


def _label(row: Claim) -> str:
    return f"{row.rung} (primary)" if row.primary else row.rung


def _cost(row: Claim) -> str:
    n = f"n = {row.interval.n}"
    return n if math.isnan(row.times) else f"{row.times:.2f} × time, {n}"


def _view(rows: tuple[Claim, ...]) -> tuple[float, float]:
    single = [one for row in rows for one in row.differences]
    return style.view([row.interval for row in rows], 0.0, *single, scale=100)
