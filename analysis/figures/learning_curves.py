"""The learning curves of a ladder: first what is drawn as numbers, then the drawing.

Accuracies are fractions (drawn in percent), epochs are student epochs, that is B-Step epochs
counted over all stages.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis import tags
from analysis.figures import style
from analysis.ladder_numbers import A_STEP, B_STEP, label_of, rung_order
from analysis.report_model import seeds_caption
from analysis.runs import by_step, column
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from trainers import metrics

CURVE_METRICS = (metrics.VAL_TOP1, metrics.SYNERGY_TOP1, metrics.STAGE_STEP)

Points = tuple[tuple[float, float], ...]

_LABELS = (RUNG_COLUMNS[1], f"tags.{tags.SEED}")
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


class Mixed(NamedTuple):
    """The student epochs after `first` up to `last` are of mixed images (Mixup, CutMix), in all
    rungs but `others`."""

    first: float
    last: float
    others: tuple[str, ...]


class CurvesInfo(NamedTuple):
    """The learning curves of a bench, ordered by rung and seed; `mixed`: when most runs mix."""

    bench: str
    curves: tuple[Curve, ...]
    mixed: Mixed | None = None


def learning_curves(kept: pd.DataFrame, history: pd.DataFrame, bench: str) -> CurvesInfo:
    """The curves of the kept runs of a bench; `history` holds `CURVE_METRICS`."""
    of_bench = kept[column(kept, RUNG_COLUMNS[0]).eq(bench)]
    runs = of_bench.reindex(columns=["run_id", *_LABELS])  # a store of teachers alone has no rungs
    wide = by_step(history[history["run_id"].isin(runs["run_id"])])
    # A run that logs no stages is all student epochs.
    in_b = column(wide, metrics.STAGE_STEP).fillna(B_STEP).eq(B_STEP) & wide.notna().any(axis=1)
    after = _student_epochs(in_b)
    starts = after[column(wide, metrics.STAGE_STEP).eq(A_STEP)]
    student = _points_by_run(after, column(wide, metrics.VAL_TOP1)[in_b])
    synergy = _points_by_run(after, column(wide, metrics.SYNERGY_TOP1)[~in_b])
    stages = _points_by_run(after, starts)
    curves = [
        Curve(
            rung,
            seed,
            student.get(run_id, ()),
            _highest(synergy.get(run_id, ())),
            tuple(dict(stages.get(run_id, ()))),
        )
        for run_id, rung, seed in zip(
            runs["run_id"], runs[RUNG_COLUMNS[1]], seeds_of(runs).astype(int), strict=True
        )
    ]
    order = rung_order({curve.rung for curve in curves})
    curves.sort(key=lambda curve: (order.index(curve.rung), curve.seed))
    return CurvesInfo(bench, tuple(curves), _mixed(of_bench))


def _student_epochs(in_b: pd.Series) -> pd.Series:
    """The student epochs up to each step, by the index of the epochs: one between two student
    epochs that has no row counts too."""
    by_run = in_b.groupby(level="run_id", observed=True)
    steps = pd.Series(in_b.index.get_level_values("step"), in_b.index, dtype=float)
    since = steps.groupby(level="run_id", observed=True).diff().fillna(1)
    after_student = by_run.shift(fill_value=False)
    counted = since.where(after_student.astype(bool), 1.0).where(in_b, 0.0)
    return counted.groupby(level="run_id", observed=True).cumsum()


_OF_MIXING = (
    "budget.student_epochs",
    "mix.start",
    "mix.stop",
    "mix.mixup_alpha",
    "mix.cutmix_alpha",
)


def _mixed(runs: pd.DataFrame) -> Mixed | None:
    """When most runs mix images; None where most do not, or do not say."""
    logged = [pd.to_numeric(column(runs, f"params.{n}"), errors="coerce") for n in _OF_MIXING]
    spans = [_span(*values) for values in zip(*logged, strict=True)]
    ((usual, _),) = Counter(spans).most_common(1) or [(None, 0)]
    if usual is None:
        return None
    rungs = zip(runs[RUNG_COLUMNS[1]], spans, strict=True)
    return Mixed(*usual, tuple(rung_order({rung for rung, span in rungs if span != usual})))


def _span(
    epochs: float, start: float, stop: float, mixup: float, cutmix: float
) -> tuple[float, float] | None:
    """The first and the last end of a run's mixed epochs. A length below 1 is a fraction of its
    epochs, as in its options."""
    if not (mixup > 0 or cutmix > 0) or math.isnan(start + epochs):
        return None
    first, last = (at if at >= 1 else at * epochs for at in (start, stop))
    return first, epochs if math.isnan(last) else last


def _points_by_run(x: pd.Series, y: pd.Series) -> dict[str, Points]:
    """(x, y) of every finite value of y, in the order of the steps."""
    y = y[np.isfinite(y.astype(float))]
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
    """A panel a rung: thin lines are seeds, the thick one their mean, markers the synergy; grey is
    the mean of the reference, the same in each panel."""
    looks = style.looks(list(dict.fromkeys(curve.rung for curve in info.curves)))
    figure, panels = style.new_multiples(
        f"{info.bench}: learning curves",
        "student epoch",
        "validation top-1, %",
        [_of_rung(info, rung) for rung in looks] or [""],
        [look.colour for look in looks.values()] or [style.TEXT],
    )
    means = {rung: mean_points([c.student for c in of]) for rung, of in _by_rung(info).items()}
    other = reference(info)
    last = max((x for mean in means.values() for x, _ in mean), default=0)
    for axes, (rung, look) in zip(panels, looks.items(), strict=False):
        if rung != other:
            axes.plot(*_percent(means.get(other, ())), **_REFERENCE)
        _draw_rung(axes, _by_rung(info)[rung], means[rung], look)
        _draw_stages(axes, info)
    for axes in panels:
        axes.set(ylim=_view(info), xlim=(0, last or 1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    style.legend_below(figure, _key(info))
    return figure


def _by_rung(info: CurvesInfo) -> dict[str, list[Curve]]:
    found: dict[str, list[Curve]] = {}
    for curve in info.curves:
        found.setdefault(curve.rung, []).append(curve)
    return found


def _of_rung(info: CurvesInfo, rung: str) -> str:
    curves = _by_rung(info)[rung]
    none = not mean_points([curve.student for curve in curves])
    return f"{label_of(rung)} (n = {len(curves)})" + ": no curve" * none


def reference(info: CurvesInfo) -> str:
    """The rung that all panels show: KD, or else CE, of several that have curves; "" for none."""
    drawn = dict.fromkeys(curve.rung for curve in info.curves if curve.student)
    return next((rung for rung in ("KD", "CE") if rung in drawn and len(drawn) > 1), "")


_REFERENCE: dict[str, Any] = {"color": style.BOUNDARY, "linewidth": 1.2, "zorder": 1.5}


def _draw_rung(axes: Axes, curves: list[Curve], mean: Points, look: style.Look) -> None:
    if len(curves) > 1:
        seeds = _percent([point for curve in curves for point in (*curve.student, _GAP)])
        axes.plot(*seeds, color=look.colour, linewidth=0.5, alpha=0.3)
    # A line of one point would not be seen.
    marker = "." if len(mean) == 1 else ""
    (line,) = axes.plot(*_percent(mean), color=look.colour, linestyle=look.dashes, linewidth=1.8)
    line.set(marker=marker, clip_on=not marker)
    synergy = mean_points([curve.synergy for curve in curves])
    if synergy:
        axes.plot(*_percent(synergy), color=look.colour, marker=look.marker, **_SYNERGY)


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
    if info.mixed:
        axes.axvspan(info.mixed.first, info.mixed.last, color=_SHADE, zorder=-1)


_SHADE = "#f4f4f4"


def curves_caption(info: CurvesInfo) -> str:
    """What the lines are, and what happens at which epochs to which rungs."""
    counts = Counter(curve.rung for curve in info.curves)
    texts = [
        f"Validation accuracy on {info.bench} over student epochs, thick lines the mean; "
        f"{seeds_caption(counts.items())}."
    ]
    if other := reference(info):
        texts.append(f"Grey in each panel: the mean of {label_of(other)}.")
    if staged := dict.fromkeys(curve.rung for curve in info.curves if curve.stages):
        none = [rung for rung in counts if rung not in staged]
        texts.append("Dotted lines: where A-Steps begin" + _but(none, "have none") + ".")
    if info.mixed:
        texts.append(
            "Shaded: epochs of mixed images (Mixup, CutMix), in the rungs without A-Steps too"
            f"{_but(info.mixed.others, 'mix at other epochs or never')}; accuracy may fall where "
            "they begin."
        )
    return " ".join(texts)


def _but(rungs: Sequence[str], what: str) -> str:
    return f" ({', '.join(rungs)} {what})" if rungs else ""


def _key(info: CurvesInfo) -> list[Artist]:
    grey = style.TEXT
    lines: list[Artist] = [Line2D([], [], color=grey, linewidth=1.8, label="student, mean")]
    if len({curve.seed for curve in info.curves}) > 1:
        lines.append(Line2D([], [], color=grey, linewidth=0.5, label="one seed"))
    if other := reference(info):
        lines.append(Line2D([], [], label=f"{label_of(other)}, mean", **_REFERENCE))
    if any(curve.synergy for curve in info.curves):
        label = "synergy, mean"
        lines.append(Line2D([], [], color=grey, marker="o", label=label, **_SYNERGY))
    if any(curve.stages for curve in info.curves):
        label = "A-Step (of the fusion)"
        lines.append(Line2D([], [], color=style.BOUNDARY, lw=0.8, linestyle=":", label=label))
    if info.mixed:
        label = f"images mixed ({'most' if info.mixed.others else 'all'} rungs)"
        lines.append(Patch(facecolor=_SHADE, edgecolor=style.FAINT, label=label))
    return lines


def _view(info: CurvesInfo) -> tuple[float, float]:
    """Limits in percent that leave out the first fifth of the epochs, where all lines rise."""
    last = max((x for curve in info.curves for x, _ in curve.student), default=0.0)
    late = [y for curve in info.curves for x, y in curve.student if x > last / 5]
    shown = [100 * y for y in [*late, *(y for curve in info.curves for _, y in curve.synergy)]]
    return style.with_margin(shown)


def _percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [100 * y for _, y in points]
