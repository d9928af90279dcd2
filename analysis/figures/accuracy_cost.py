"""Accuracy against cost: first what is drawn as numbers, then the drawing.

Accuracies are fractions (drawn in percent), times are seconds.
"""

import itertools
import math
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import in_percent
from analysis.figures import style
from analysis.figures.labels import Line, place_labels
from analysis.ladder_numbers import LadderTable, label_of
from analysis.stats import Interval, pareto_front


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


def accuracy_cost(table: LadderTable, bench: str) -> CostInfo:
    """Mean time and test accuracy of every rung of a bench, with the Pareto front."""
    rows = [row for row in table.rows if row.bench == bench]
    timed = [row for row in rows if math.isfinite(row.seconds)]
    front = pareto_front([row.seconds for row in timed], [row.test.mean for row in timed])
    points = [
        CostPoint(row.rung, row.seconds, row.test, on_front)
        for row, on_front in zip(timed, front, strict=True)
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
    style.make_room(figure, len(info.points))
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
        labels.append(label_of(point.rung) + f" ({', '.join(notes)})" * bool(notes))
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
    return style.with_margin(shown)


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
