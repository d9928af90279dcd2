"""The house style of every figure: colours, markers and sizes, in one place."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures import fonts
from analysis.stats import Interval

rcParams["text.parse_math"] = False  # names of runs and benches are no formulas

WIDTH, HEIGHT = 7.2, 4.2  # inches: the width of a printed page without its margins
DPI = 200
FAINT = "#e4e4e4"
BOUNDARY = "#8c8c8c"
TEXT = "#404040"
SMALL = 8  # points
_ROOMY = 11  # rungs that a figure of the usual height has room for

# After Okabe and Ito (2008), safe for the common forms of colour blindness; light ones are darker
# here, for a contrast of 3:1 with the page at least. Controls are black and grey. Marker and dashes
# tell rungs apart without colour.
_COLOURS = {
    "CE": "#000000",
    "KD": "#808080",
    "L0": "#1090b8",
    "L1": "#0072b2",
    "L2": "#009e73",
    "L3": "#d55e00",
    "L4": "#c0629a",
}
# What is next to the ladder has its own colour in every figure, after Tol's muted and dark
# ones (Paul Tol, 2021).
_BESIDE = {
    "CE_all": "#4d4d4d",
    "KD_conf": "#606c5a",
    "self": "#7a5195",
    "stack": "#005f60",
    "ce": "#555555",
    "kd": "#332288",
    "fitnet": "#117733",
    "at": "#8a8a26",
    "crd": "#882255",
    "dkd": "#2f9a8a",
    "dist": "#aa4499",
    "kd_ls": "#5b8fc4",
    "CE_matched": "#663333",
    "KD_null": "#8f8350",
    "L2_null": "#a08a1a",
    "L2_null_class": "#b07d00",
    "L2_null_tokens": "#6f6118",
    "L2_null_by_label": "#a2864f",
    "L3_null": "#cc6677",
    "L3_null_by_label": "#a8505f",
    "side_cccp_ppf": "#661100",
    "side_asib_cccp": "#7b8ec8",
}
_OTHER_COLOURS = ("#c27a00", "#663399", "#225555", "#994455")  # of one's own methods
_MARKERS = {"CE": "s", "KD": "D", "L0": "v", "L1": "^", "L2": "<", "L3": "o", "L4": ">"}
_OTHER_MARKERS = ("X", "P", "*", "p", "h", "8", "d")


class Look(NamedTuple):
    """How a rung is drawn in every figure."""

    colour: str
    marker: str
    dashes: str


def looks(rungs: Sequence[str]) -> dict[str, Look]:
    """The look of each rung; those next to the ladder are dotted, and what no paper and no ladder
    names takes its colour in the order given."""
    found = {rung: Look(_COLOURS[rung], _MARKERS[rung], "-") for rung in rungs if rung in _COLOURS}
    own = [rung for rung in rungs if rung not in _COLOURS and rung not in _BESIDE]
    for rung in (rung for rung in rungs if rung not in _COLOURS):
        if rung in _BESIDE:
            index, colour = list(_BESIDE).index(rung), _BESIDE[rung]
        else:
            index = own.index(rung)
            colour = _OTHER_COLOURS[index % len(_OTHER_COLOURS)]
        found[rung] = Look(colour, _OTHER_MARKERS[index % len(_OTHER_MARKERS)], ":")
    return found


def new_figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes; no state is shared with other figures."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(fonts.writable(title), loc="left", fontsize=10, color=TEXT, **written(title))
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    _plain(axes)
    return figure, axes


def written(text: str) -> dict[str, Any]:
    """How a text of the user's is written: in fonts that have its letters, a dollar as a dollar."""
    return {"family": fonts.families(fonts.writable(text)), "parse_math": False}


def make_room(figure: Figure, rungs: int) -> None:
    """A higher figure where labels of many rungs would stand on each other."""
    figure.set_size_inches(WIDTH, HEIGHT * max(1.0, rungs / _ROOMY))


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """One row under the axes, or two of more than five, where it covers nothing."""
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles) if len(handles) <= 5 else math.ceil(len(handles) / 2),
            fontsize=SMALL,
            frameon=False,
            columnspacing=1.5,
        )


def new_panels(
    title: str, x_label: str, y_labels: Sequence[str], *, stacked: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with two pairs of axes side by side, which share nothing but the style; or one
    over the other (`stacked`), which share their x axis."""
    count = len(y_labels)
    height = HEIGHT * (0.25 + 0.4 * count if stacked else 0.85)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    rows, columns = (count, 1) if stacked else (1, count)
    grid = figure.subplots(rows, columns, sharex=stacked, squeeze=False)
    panels = list(grid.flat)
    for axes, label in zip(panels, y_labels, strict=True):
        axes.set_ylabel(label, fontsize=9)
        _plain(axes)
    for axes in panels[-1:] if stacked else panels:
        axes.set_xlabel(x_label, fontsize=9)
    title_font = {"fontsize": 10, "color": TEXT} | written(title)
    figure.suptitle(fonts.writable(title), x=0.01, ha="left", **title_font)
    return figure, panels


def new_multiples(
    title: str, x_label: str, y_label: str, names: Sequence[str], colours: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """A figure with a small panel under each name, all with the same axes."""
    count = len(names)
    columns = count if count <= 3 else min(4, math.ceil(count / 2))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, HEIGHT * (0.45 + 0.4 * rows)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)[:count]
    for axes in list(grid.flat)[count:]:
        axes.remove()
    for axes, name, colour in zip(panels, names, colours, strict=True):
        _plain(axes)
        font = {"fontsize": 9, "loc": "left", "color": colour} | written(name)
        axes.set_title(fonts.writable(name), **font)
    for axes in panels[-columns:]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(x_label, fontsize=9)
    title_font = {"fontsize": 10, "color": TEXT} | written(title)
    figure.suptitle(fonts.writable(title), x=0.01, ha="left", **title_font)
    figure.supylabel(y_label, fontsize=9)
    return figure, panels


def _plain(axes: Axes) -> None:
    """Axes without what is not needed."""
    axes.tick_params(labelsize=SMALL, colors=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def series(index: int) -> Look:
    """The look of the index-th series where a figure is not about rungs."""
    colours, dashes = ("#0072b2", "#d55e00", "#009e73", "#c0629a", "#000000"), ("-", "--", "-.")
    return Look(
        colours[index % len(colours)],
        tuple(_MARKERS.values())[(index + 5) % len(_MARKERS)],
        dashes[index % len(dashes)],
    )


def whiskers(intervals: Sequence[Interval], scale: float = 1.0) -> tuple[list[float], list[float]]:
    """How far each interval reaches below and above its mean (times `scale`), as matplotlib takes
    error bars; 0 where one value has none."""
    known = [one.n > 1 for one in intervals]
    below = [scale * (i.mean - i.low) if k else 0.0 for i, k in zip(intervals, known, strict=True)]
    above = [scale * (i.high - i.mean) if k else 0.0 for i, k in zip(intervals, known, strict=True)]
    return below, above


def view(intervals: Sequence[Interval], *more: float, scale: float = 1.0) -> tuple[float, float]:
    """Limits of an axis (times `scale`) that show all means, `more`, and the intervals of more
    than two values: those of two are so wide that they would flatten the rest, and may leave the
    frame."""
    shown = [*more, *(one.mean for one in intervals if one.n)]
    shown += [bound for one in intervals if one.n > 2 for bound in (one.low, one.high)]
    margin = 0.06 * (max(shown) - min(shown) or abs(shown[0]) or 1.0)
    return scale * (min(shown) - margin), scale * (max(shown) + margin)


def with_margin(shown: Sequence[float]) -> tuple[float, float]:
    """Limits in percent with some room around the values; all of 0 to 100 where there is none."""
    if not shown:
        return 0.0, 100.0
    margin = max(0.08 * (max(shown) - min(shown)), 0.5)
    return min(shown) - margin, max(shown) + margin


def bars_caption(intervals: Iterable[Interval]) -> str:
    """What bars are in a figure that `view` frames, for its caption."""
    known = list(intervals)
    if all(one.n < 2 for one in known):
        return "absent, for one seed has no interval"
    cut = " (those of two seeds may leave the frame)" * any(one.n == 2 for one in known)
    return f"95 % t-intervals{cut}"


def means_caption(intervals: Iterable[Interval]) -> str:
    """What the markers and their bars are, where there are any bars."""
    known = list(intervals)
    if all(one.n < 2 for one in known):
        return "single seeds, without intervals"
    return f"means with {bars_caption(known)}"


def draw_intervals(
    axes: Axes,
    x: Sequence[float],
    intervals: Sequence[Interval],
    look: Look,
    label: str,
    *,
    scale: float = 1.0,
    joined: bool = True,
) -> None:
    """Means (times `scale`) with their intervals as bars; one value has no bar, none no marker."""
    known = [(at, one) for at, one in zip(x, intervals, strict=True) if one.n]
    means = [scale * one.mean for _, one in known]
    reach = whiskers([one for _, one in known], scale)
    axes.errorbar(
        [at for at, _ in known],
        means,
        yerr=reach,
        label=label,
        color=look.colour,
        marker=look.marker,
        linestyle=look.dashes if joined else "none",
        markersize=5,
        linewidth=1.4,
        elinewidth=1.0,
        capsize=3,
    )
