"""The ladder as one picture: what each rung gives against the best control, and at what cost.

Differences are fractions (drawn in points), paired by seed.
"""

import math
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis import style
from analysis.claims import Claim
from analysis.configuration import same_setting
from analysis.stats import NO_INTERVAL, Interval, differences_by_seed, primary_interval
from analysis.tables import LadderRow, LadderTable, accuracy_by_seed, ratio, rung_order
from analysis.verdicts import best_control

_ROW = 0.3  # inches
_FRAME = 1.4  # inches above and below the rows


class Difference(NamedTuple):
    """A rung less the best control: of each seed, and its mean with an interval. `times` is its
    time over the control's; `shown` whether a claim of the ladder shows a difference."""

    rung: str
    seeds: tuple[float, ...]
    interval: Interval
    times: float
    shown: bool
    primary: bool


class DifferencesInfo(NamedTuple):
    """Every rung and method of a bench that shares a seed with the best control ("": none)."""

    bench: str
    control: str
    rows: tuple[Difference, ...]


def differences(
    kept: pd.DataFrame, table: LadderTable, bench: str, found: tuple[Claim, ...]
) -> DifferencesInfo:
    """The differences of a bench in the order of its ladder; `found` is what is claimed of it."""
    control, rows = best_control(table, bench), {r.rung: r for r in table.rows if r.bench == bench}
    if control is None:
        return DifferencesInfo(bench, "", ())
    claimed = {claim.rung: claim for claim in found if claim.reference == control.rung}
    others = [
        rung for rung in rung_order(set(rows))
        if rung != control.rung and same_setting(kept, bench, rung, control.rung)
    ]  # fmt: skip
    every = [_difference(kept, rows[rung], control, claimed.get(rung)) for rung in others]
    return DifferencesInfo(bench, control.rung, tuple(row for row in every if row.seeds))


def _difference(
    kept: pd.DataFrame, row: LadderRow, control: LadderRow, claim: Claim | None
) -> Difference:
    own, base = (accuracy_by_seed(kept, row.bench, one.rung) for one in (row, control))
    seeds = differences_by_seed(own, base)
    interval = primary_interval(seeds) if seeds else NO_INTERVAL
    shown, primary = (claim.shown, claim.primary) if claim else (False, False)
    return Difference(
        row.rung, seeds, interval, ratio(row.seconds, control.seconds), shown, primary
    )


def draw_differences(info: DifferencesInfo) -> Figure:
    """A row a rung: its interval, the single seeds as ticks, and its time over the control's.

    A filled marker is a claim of the ladder that is shown at its family's level; nothing is claimed
    of the other controls. The interval of two seeds may leave the frame.
    """
    figure, axes = style.new_figure(
        f"{info.bench}: test top-1 less that of {info.control}, the best control",
        "points, paired by seed (bars: 95 % intervals; ticks: seeds)\n"
        "filled: shown after Holm; controls are not claimed to differ",
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
            [100 * one for one in row.seeds], [at] * len(row.seeds), linestyle="none",
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


def _label(row: Difference) -> str:
    return f"{row.rung} (primary)" if row.primary else row.rung


def _cost(row: Difference) -> str:
    n = f"n = {row.interval.n}"
    return n if math.isnan(row.times) else f"{row.times:.2f} × time, {n}"


def _view(rows: tuple[Difference, ...]) -> tuple[float, float]:
    single = [one for row in rows for one in row.seeds]
    return style.view([row.interval for row in rows], 0.0, *single, scale=100)
