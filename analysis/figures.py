"""Figures of a ladder: first what is drawn as numbers, then the drawing.

Accuracies are fractions (drawn in percent), epochs are student epochs, that is B-Step epochs
counted over all stages, times are seconds.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import style
from analysis.configuration import RUNG_COLUMNS, seeds_of
from analysis.labels import Line, label_ends, place_labels
from analysis.render import in_percent
from analysis.runs import by_step, column
from analysis.stats import Interval
from analysis.tables import A_STEP, B_STEP, LadderTable, rung_order
from pipeline import names

CURVE_METRICS = (names.VAL_TOP1, names.SYNERGY_TOP1, names.STAGE_STEP)

Points = tuple[tuple[float, float], ...]

_LABELS = (RUNG_COLUMNS[1], f"tags.{names.SEED}")
_ROOMY = 11  # rungs that a figure of the usual height has room for
_GAP = (math.nan, math.nan)  # between two curves that are one line of matplotlib's


class Curve(NamedTuple):
    """A run: student accuracy after each student epoch, synergy accuracy before each B-Step.

    `synergy` has the best value of each A-Step, whose state is the one that is restored, at the
    number of student epochs before it; `stages` are those numbers for every A-Step.
    """

    rung: str
    seed: int
    student: Points
    synergy: Points
    stages: tuple[float, ...]


class CurvesInfo(NamedTuple):
    """The learning curves of a bench, ordered by rung and seed."""

    bench: str
    curves: tuple[Curve, ...]


class CostPoint(NamedTuple):
    """A rung's mean time and its test accuracy; `front` if no cheaper rung is as accurate."""

    rung: str
    seconds: float
    test: Interval
    front: bool


class CostInfo(NamedTuple):
    """Accuracy against cost on a bench, ordered by rung; `level` is that of the intervals."""

    bench: str
    points: tuple[CostPoint, ...]
    missing: tuple[str, ...]  # rungs without a time
    level: float


def learning_curves(kept: pd.DataFrame, history: pd.DataFrame, bench: str) -> CurvesInfo:
    """The curves of the kept runs of a bench; `history` holds `CURVE_METRICS`."""
    of_bench = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    runs = of_bench.reindex(columns=["run_id", *_LABELS])  # a store of teachers alone has no rungs
    wide = by_step(history[history["run_id"].isin(runs["run_id"])])
    # A run that logs no stages is all student epochs.
    in_b = column(wide, names.STAGE_STEP).fillna(B_STEP).eq(B_STEP) & wide.notna().any(axis=1)
    after = in_b.groupby(level="run_id", observed=True).cumsum().astype(float)
    starts = after[column(wide, names.STAGE_STEP).eq(A_STEP)]
    student = _points_by_run(after, column(wide, names.VAL_TOP1)[in_b])
    synergy = _points_by_run(after, column(wide, names.SYNERGY_TOP1)[~in_b])
    stages = _points_by_run(after, starts)
    curves = [
        Curve(
            rung, seed, student.get(run_id, ()), _highest(synergy.get(run_id, ())),
            tuple(dict(stages.get(run_id, ()))),
        )
        for run_id, rung, seed in zip(
            runs["run_id"], runs[RUNG_COLUMNS[1]], seeds_of(runs).astype(int), strict=True
        )
    ]  # fmt: skip
    order = rung_order({curve.rung for curve in curves})
    curves.sort(key=lambda curve: (order.index(curve.rung), curve.seed))
    return CurvesInfo(bench, tuple(curves))


def _points_by_run(x: pd.Series, y: pd.Series) -> dict[str, Points]:
    """(x, y) of every value of y that is there, in the order of the steps."""
    y = y.dropna()
    found: dict[str, list[tuple[float, float]]] = {}
    at = x[y.index].tolist()
    for run_id, *point in zip(y.index.get_level_values("run_id"), at, y.tolist(), strict=True):
        found.setdefault(run_id, []).append((point[0], point[1]))
    return {run_id: tuple(points) for run_id, points in found.items()}


def _highest(points: Points) -> Points:
    """The highest y at each x."""
    best: dict[float, float] = {}
    for x, y in points:
        best[x] = max(y, best.get(x, y))
    return tuple(best.items())


def mean_points(curves: Sequence[Points]) -> Points:
    """The mean over the curves where all of them have a value, so that no end makes a jump."""
    values = [dict(points) for points in curves]
    common = sorted(set.intersection(*(set(points) for points in values))) if values else []
    return tuple((x, float(np.mean([points[x] for points in values]))) for x in common)


def draw_learning_curves(info: CurvesInfo) -> Figure:
    """A colour a rung: thin lines are seeds, the thick one their mean, markers the synergy."""
    figure, axes = style.new_figure(
        f"{info.bench}: learning curves", "student epoch", "validation top-1, %"
    )
    looks = style.looks(list(dict.fromkeys(curve.rung for curve in info.curves)))
    _make_room(figure, len(looks))
    ends, labels = [], []
    for rung, look in looks.items():
        curves = [curve for curve in info.curves if curve.rung == rung]
        mean = _draw_rung(axes, curves, look)
        ends.append((mean[-1][0], 100 * mean[-1][1]) if mean else (0.0, 0.0))
        labels.append(f"{rung} (n = {len(curves)})" + (": no curve" if not mean else ""))
    _draw_stages(axes, info)
    axes.set_ylim(_view(info))
    axes.set_xlim(0, max((x for x, _ in ends), default=0) or 1)
    label_ends(axes, ends, labels, [look.colour for look in looks.values()])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    style.legend_below(figure, _key(info))
    return figure


def _make_room(figure: Figure, rungs: int) -> None:
    """A higher figure where labels of many rungs would stand on each other."""
    figure.set_size_inches(style.WIDTH, style.HEIGHT * max(1.0, rungs / _ROOMY))


def _draw_rung(axes: Axes, curves: list[Curve], look: style.Look) -> Points:
    if len(curves) > 1:
        seeds = _percent([point for curve in curves for point in (*curve.student, _GAP)])
        axes.plot(*seeds, color=look.colour, linewidth=0.5, alpha=0.3)
    mean = mean_points([curve.student for curve in curves])
    # A line of one point would not be seen.
    marker = "." if len(mean) == 1 else ""
    (line,) = axes.plot(*_percent(mean), color=look.colour, linestyle=look.dashes, linewidth=1.8)
    line.set(marker=marker, clip_on=not marker)
    synergy = mean_points([curve.synergy for curve in curves])
    if synergy:
        axes.plot(*_percent(synergy), color=look.colour, marker=look.marker, **_SYNERGY)
    return mean


_SYNERGY: dict[str, Any] = {
    "linestyle": "--",
    "linewidth": 0.9,
    "markersize": 5,
    "markerfacecolor": "white",
    "zorder": 3,
    "clip_on": False,  # the first ones stand on the axis
}


def _draw_stages(axes: Axes, info: CurvesInfo) -> None:
    for start in sorted({start for curve in info.curves for start in curve.stages}):
        axes.axvline(start, color=style.BOUNDARY, linewidth=0.8, linestyle=":", zorder=0)


def _key(info: CurvesInfo) -> list[Line2D]:
    grey = style.TEXT
    lines = [Line2D([], [], color=grey, linewidth=1.8, label="student, mean")]
    if len({curve.seed for curve in info.curves}) > 1:
        lines.append(Line2D([], [], color=grey, linewidth=0.5, label="student, one seed"))
    if any(curve.synergy for curve in info.curves):
        label = "synergy after the A-Step, mean"
        lines.append(Line2D([], [], color=grey, marker="o", label=label, **_SYNERGY))
    if any(curve.stages for curve in info.curves):
        label = "stage start (A-Step)"
        lines.append(Line2D([], [], color=style.BOUNDARY, lw=0.8, linestyle=":", label=label))
    return lines


def _view(info: CurvesInfo) -> tuple[float, float]:
    """Limits in percent that leave out the first fifth of the epochs, where all lines rise."""
    last = max((x for curve in info.curves for x, _ in curve.student), default=0.0)
    late = [y for curve in info.curves for x, y in curve.student if x > last / 5]
    shown = [100 * y for y in [*late, *(y for curve in info.curves for _, y in curve.synergy)]]
    return _with_margin(shown)


def _with_margin(shown: list[float]) -> tuple[float, float]:
    if not shown:
        return 0.0, 100.0
    margin = max(0.08 * (max(shown) - min(shown)), 0.5)
    return min(shown) - margin, max(shown) + margin


def _percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [100 * y for _, y in points]


def accuracy_cost(table: LadderTable, bench: str) -> CostInfo:
    """Mean time and test accuracy of every rung of a bench, with the Pareto front."""
    rows = [row for row in table.rows if row.bench == bench]
    timed = [row for row in rows if math.isfinite(row.seconds)]
    points = [
        CostPoint(
            row.rung,
            row.seconds,
            row.test,
            not any(
                (other.seconds, -other.test.mean) != (row.seconds, -row.test.mean)
                and other.seconds <= row.seconds
                and other.test.mean >= row.test.mean
                for other in timed
            ),
        )
        for row in timed
    ]
    missing = tuple(row.rung for row in rows if not math.isfinite(row.seconds))
    return CostInfo(bench, tuple(points), missing, table.level)


def draw_accuracy_cost(info: CostInfo) -> Figure:
    """Test accuracy with its interval against run time; a line joins the Pareto front.

    The interval of two seeds is so wide that it would flatten the rest: it may leave the frame.
    """
    missing = f" (no time: {', '.join(info.missing)})" if info.missing else ""
    counts = {point.test.n for point in info.points}
    of_each = f", n = {min(counts)} each" if len(counts) == 1 else ""
    figure, axes = style.new_figure(
        f"{info.bench}: accuracy against cost{of_each}{missing}",
        "mean run time, s (all stages, A-Steps and view banks)",
        f"test top-1, % (bars: {in_percent(info.level)} interval)",
    )
    front = sorted((point.seconds, 100 * point.test.mean) for point in info.points if point.front)
    times, means = [x for x, _ in front], [y for _, y in front]
    (line,) = axes.plot(times, means, color=style.BOUNDARY, linestyle="--", linewidth=1.0, zorder=1)
    line.set(drawstyle="steps-post", label="Pareto front of the means")
    looks = style.looks([point.rung for point in info.points])
    _make_room(figure, len(info.points))
    for point in info.points:
        _draw_cost(axes, point, looks[point.rung])
    axes.margins(x=0.12)
    axes.set_ylim(_frame(info))
    style.legend_below(figure, [line] if len(front) > 1 else [])
    low, high = axes.get_ylim()
    labels = []
    for point, bar in zip(info.points, _bars(info), strict=True):
        notes = [] if of_each else [f"n = {point.test.n}"]
        notes += ["bar cut"] if bar[0][1] < low or bar[1][1] > high else []
        labels.append(point.rung + f" ({', '.join(notes)})" * bool(notes))
    positions = [(point.seconds, 100 * point.test.mean) for point in info.points]
    colours = [looks[point.rung].colour for point in info.points]
    place_labels(axes, positions, labels, colours, [*_bars(info), *_steps(front)])
    return figure


def _bars(info: CostInfo) -> list[Line]:
    """The ends of each interval, of no length where there is none, in s and percent."""
    ends = []
    for point in info.points:
        low, high = (point.test.mean, point.test.mean) if point.test.n < 2 else point.test[2:]
        ends.append(((point.seconds, 100 * low), (point.seconds, 100 * high)))
    return ends


def _steps(front: list[tuple[float, float]]) -> list[Line]:
    pairs = list(itertools.pairwise(front))
    level = [((x, y), (next_x, y)) for (x, y), (next_x, _) in pairs]
    return level + [((next_x, y), (next_x, next_y)) for (_, y), (next_x, next_y) in pairs]


def _frame(info: CostInfo) -> tuple[float, float]:
    """Limits in percent around all means and all intervals of more than two seeds."""
    shown = [100 * point.test.mean for point in info.points]
    for point, bar in zip(info.points, _bars(info), strict=True):
        shown += [y for _, y in bar] if point.test.n > 2 else []
    return _with_margin(shown)


def _draw_cost(axes: Axes, point: CostPoint, look: style.Look) -> None:
    mean = 100 * point.test.mean
    axes.errorbar(
        [point.seconds],
        [mean],
        yerr=style.whiskers([point.test], 100) if point.test.n > 1 else None,
        fmt=look.marker,
        color=look.colour,
        markersize=6,
        elinewidth=1.0,
        capsize=3,
        zorder=2,
    )
