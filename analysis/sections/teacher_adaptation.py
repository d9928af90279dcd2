"""Each teacher before and after every A-Step, and what the fusion gains over them.

Accuracies are validation accuracies (fractions), but for the student's, which is its test accuracy.
"""

import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.cells import MISSING, percent, points, signed
from analysis.figures import style
from analysis.ladder_numbers import rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS
from analysis.stats import Interval, correlation_interval, mean_interval
from analysis.words import counted
from trainers import metrics

_ZERO = 1e-12  # a difference of accuracies that is none
_TEACHER = re.compile(r"metrics\.teacher(\d+)/top1_before")


class Adapted(NamedTuple):
    """A teacher of a rung: means over the seeds of its accuracy before and after each A-Step."""

    rung: str
    teacher: int
    n: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    change: Interval  # last after - first before, over seeds


class Gain(NamedTuple):
    """A run: the synergy gain of its last A-Step over the best teacher, as it was loaded (as it was
    by then where that was not logged), and the student's test accuracy."""

    rung: str
    gain: float
    student: float
    loaded: bool = True


class Unfused(NamedTuple):
    """What the fusion of a rung's last A-Step gains over its teachers without one, over seeds: with
    the teachers as they are then, and as they were loaded."""

    rung: str
    against: str
    now: Interval
    original: Interval


class Read(NamedTuple):
    """What the last fusion of a rung reads: shares of its accuracy that it loses with the query,
    and with the teachers' tokens, of another image."""

    rung: str
    query: Interval
    tokens: Interval


class AdaptationInfo(NamedTuple):
    """All teachers of all rungs that adapt them, and the gain of every run with a fusion."""

    bench: str
    teachers: tuple[Adapted, ...]
    gains: tuple[Gain, ...]
    unfused: tuple[Unfused, ...]
    read: tuple[Read, ...]
    correlation: float  # Pearson's of gain and student accuracy within rungs; NaN below four runs
    freedom: int = 0  # runs, less one for each rung but the first


def metrics_of(kept: pd.DataFrame) -> tuple[str, ...]:
    """The metrics that say what happened to however many teachers there are."""
    found = [match[1] for name in kept if (match := _TEACHER.fullmatch(str(name)))]
    numbers = sorted(int(number) for number in found)
    return tuple(
        metrics.teacher(k, f"top1_{when}") for k in numbers for when in ("before", "after")
    )


def adaptation_info(kept: pd.DataFrame, history: pd.DataFrame, bench: str) -> AdaptationInfo:
    """`history` holds `metrics_of(kept)`."""
    rung_of = dict(zip(kept["run_id"], kept[RUNG_COLUMNS[1]], strict=True)) if len(kept) else {}
    found = []
    for rung in rung_order(set(rung_of.values())):
        of_rung = history[history["run_id"].map(rung_of).eq(rung)]
        for k in range(len(metrics_of(kept)) // 2):
            found += _adapted(of_rung, rung, k)
    gains = tuple(gain for _, run in kept.iterrows() if (gain := _gain(run)) is not None)
    within = _correlation(gains)
    return AdaptationInfo(bench, tuple(found), gains, _unfused(kept), _read(kept), *within)


_GAIN, _TEST = f"metrics.{metrics.SYNERGY_GAIN}", f"metrics.{metrics.TEST_TOP1}"
_GAIN_LOADED = f"metrics.{metrics.SYNERGY_GAIN_ORIGINAL}"
_STUDENT = "the student that asks"
_AGAINST = {
    _STUDENT: (metrics.SYNERGY_GAIN_STUDENT, metrics.SYNERGY_GAIN_STUDENT),
    "the best teacher": (metrics.SYNERGY_GAIN, metrics.SYNERGY_GAIN_ORIGINAL),
    "the teachers' average": (metrics.SYNERGY_GAIN_AVERAGE, metrics.SYNERGY_GAIN_AVERAGE_ORIGINAL),
}


def _gain(run: pd.Series) -> Gain | None:
    loaded = bool(np.isfinite(run.get(_GAIN_LOADED, np.nan)))
    gain = float(run.get(_GAIN_LOADED if loaded else _GAIN, np.nan))
    if not np.isfinite(gain):
        return None
    return Gain(str(run[RUNG_COLUMNS[1]]), gain, float(run[_TEST]), loaded)


def _unfused(kept: pd.DataFrame) -> tuple[Unfused, ...]:
    found = []
    for rung in rung_order(column(kept, RUNG_COLUMNS[1]).dropna().unique()):
        of_rung = kept[kept[RUNG_COLUMNS[1]] == rung]
        for against, pair in _AGAINST.items():
            now, original = (_over_seeds(of_rung, metric) for metric in pair)
            if now.n:
                found.append(Unfused(rung, against, now, original))
    return tuple(found)


def _read(kept: pd.DataFrame) -> tuple[Read, ...]:
    found = []
    for rung in rung_order(column(kept, RUNG_COLUMNS[1]).dropna().unique()):
        of_rung = kept[kept[RUNG_COLUMNS[1]] == rung]
        pair = (metrics.SYNERGY_QUERY_SHARE, metrics.SYNERGY_TOKEN_SHARE)
        query, tokens = (_over_seeds(of_rung, metric) for metric in pair)
        found += [Read(rung, query, tokens)] if query.n else []
    return tuple(found)


def _over_seeds(runs: pd.DataFrame, metric: str) -> Interval:
    values = column(runs, f"metrics.{metric}").astype(float)
    return mean_interval(values[np.isfinite(values)].tolist())


def _adapted(of_rung: pd.DataFrame, rung: str, k: int) -> list[Adapted]:
    tables = []
    for when in ("before", "after"):
        values = of_rung[of_rung["metric"].eq(metrics.teacher(k, f"top1_{when}"))]
        by_run = [g.sort_values("step")["value"].tolist() for _, g in values.groupby("run_id")]
        steps = min(map(len, by_run), default=0)
        tables.append(np.array([path[:steps] for path in by_run]))
    before, after = tables
    if not before.size or before.shape != after.shape:
        return []
    change = mean_interval(after[:, -1] - before[:, 0])
    means = [tuple(map(float, table.mean(axis=0))) for table in tables]
    return [Adapted(rung, k, len(before), means[0], means[1], change)]


def _correlation(gains: tuple[Gain, ...]) -> tuple[float, int]:
    """Within rungs: rungs differ in more than their gain. And over how many runs, less one for
    each mean that was taken off but the first."""
    table = pd.DataFrame(gains, columns=list(Gain._fields))
    own = table[["gain", "student"]] - table.groupby("rung")[["gain", "student"]].transform("mean")
    freedom = len(table) - table["rung"].nunique() + 1
    if freedom < 4 or (own.abs().max() < _ZERO).any():
        return float("nan"), freedom
    return float(np.corrcoef(own.to_numpy().T)[0, 1]), freedom


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    kept = bench_runs.kept
    metrics = metrics_of(kept)
    info = adaptation_info(kept, bench_runs.history(kept, metrics), bench_runs.bench)
    title = "Teacher adaptation"
    gaps: tuple[MissingRun, ...] = ()
    if not info.teachers:
        gaps = (MissingRun("no finished run adapts its teachers", bench_runs.multirun(cfg="L3")),)
    if not info.teachers and not info.gains:
        return Section("teacher_adaptation", bench_runs.bench, title, gaps=gaps)
    tables = [Table("Validation accuracy of each teacher (means over seeds)", block(info))]
    gained = Table(
        "Synergy gain: validation accuracy of the last fusion less that of "
        + ("its student and " if any(one.against == _STUDENT for one in info.unfused) else "")
        + "unfused teachers",
        gain_block(info),
    )
    runs = counted(len(kept), "finished run")
    none = () if info.teachers else (f"No run adapts its teachers ({runs} looked at).",)
    return Section(
        "teacher_adaptation",
        bench_runs.bench,
        title,
        sentences=(*none, *_sentences(info)),
        tables=(
            *(tables if info.teachers else ()),
            *([gained] if info.unfused else ()),
            *([Table(_READ, read_block(info))] if info.read else ()),
        ),
        figures=(ReportFigure(f"teacher_adaptation_{info.bench}", draw(info), _caption(info)),),
        notes=(_PRECISION,),
        gaps=gaps,
        run_ids=tuple(kept["run_id"][column(kept, _GAIN).notna()]),
        summary=_summary(info),
    )


def _summary(info: AdaptationInfo) -> tuple[str, ...]:
    """The teacher that lost most; nothing of its own where none adapts."""
    if not info.teachers:
        return ()
    worst = min(info.teachers, key=lambda one: one.change.mean)
    several = f" of {len(info.teachers)}, not corrected for that choice" * (len(info.teachers) > 1)
    return (f"The worst change of a teacher{several}: {_sentence(worst)}",)


def _sentence(one: Adapted) -> str:
    return (
        f"{one.rung}: teacher {one.teacher} went from {percent(one.before[0])} to "
        f"{percent(one.after[-1])} % over {counted(len(one.before), 'A-Step')} "
        f"({points(one.change.mean)} points{_bounds(one.change)}, n = {one.n})."
    )


def _sentences(info: AdaptationInfo) -> tuple[str, ...]:
    texts = [_sentence(one) for one in info.teachers]
    for rung in rung_order({one.rung for one in info.unfused}):
        gains = [
            f"{points(one.now.mean)}{_bounds(one.now)} points from {one.against} (n = {one.now.n})"
            for one in info.unfused
            if one.rung == rung and one.now.n
        ]
        listed = f"{', '.join(gains[:-1])} and {gains[-1]}" if gains[1:] else gains[0]
        texts.append(f"{rung}: the last fusion is {listed}.")
    if np.isfinite(info.correlation):
        low, high = correlation_interval(info.correlation, info.freedom)
        texts.append(
            f"Synergy gain over the best teacher {_as(info)} and student accuracy, within rungs: "
            f"correlation "
            f"{signed(info.correlation)} [{signed(low)}, {signed(high)}] over "
            f"{len(info.gains)} runs, which is no proof of cause."
        )
    return tuple(texts)


def _as(info: AdaptationInfo) -> str:
    """Which state of the teachers the gains of the runs are over."""
    loaded = [one.loaded for one in info.gains]
    if all(loaded):
        return "as it was loaded"
    return "as it was by then" + f" (of {sum(loaded)} runs as it was loaded)" * any(loaded)


def _bounds(found: Interval) -> str:
    return f" [{points(found.low)}, {points(found.high)}]" if found.n > 1 else ""


def block(info: AdaptationInfo) -> TextTable:
    """A row a teacher of a rung."""
    header = ("rung and teacher", "n", "before, %", "after, %", "change, points")
    return TextTable(
        header,
        tuple(
            (
                f"{one.rung}, teacher {one.teacher}",
                str(one.n),
                percent(one.before[0]),
                percent(one.after[-1]),
                points(one.change.mean) + _bounds(one.change),
            )
            for one in info.teachers
        ),
    )


_READ = "What the last fusion reads: the share of its accuracy that is lost without it"


def read_block(info: AdaptationInfo) -> TextTable:
    """A row a rung: without its own query, without its own tokens."""
    rows = (
        (one.rung, str(one.query.n), *(_share(found) for found in (one.query, one.tokens)))
        for one in info.read
    )
    header = ("rung", "n", "query of another image, %", "tokens of another image, %")
    return TextTable(header, tuple(rows))


def _share(found: Interval) -> str:
    bounds = f" [{percent(found.low)}, {percent(found.high)}]" if found.n > 1 else ""
    return percent(found.mean) + bounds


def gain_block(info: AdaptationInfo) -> TextTable:
    """A row for what the fusion is compared with: the student, the best teacher, the average."""
    header = ("rung, less", "n", "teachers as they are then", "as they were loaded")
    return TextTable(
        header,
        tuple(
            (
                f"{one.rung}, {one.against}",
                str(one.now.n),
                points(one.now.mean) + _bounds(one.now),
                MISSING
                if one.against == _STUDENT
                else points(one.original.mean) + _bounds(one.original),
            )
            for one in info.unfused
        ),
    )


def _caption(info: AdaptationInfo) -> str:
    counts = seeds_caption((f"{t.rung} teacher {t.teacher}", t.n) for t in info.teachers)
    left = f"Validation accuracy before (open) and after (filled) each A-Step, means; {counts}."
    right = (
        f"Each run's synergy gain at its last A-Step over the best teacher {_as(info)}, against "
        f"the student's test accuracy; {counted(len(info.gains), 'run')}."
    )
    if info.teachers and info.gains:
        return f"Left. {left} Right. {right}"
    return left if info.teachers else right


_PRECISION = (
    "What teachers say of validation images is kept in half precision: an accuracy may differ by "
    "an image from the teacher's own, and the end of an A-Step from the start of the next."
)
_TEACHERS, _GAINS = "teacher, validation top-1, %", "student, test top-1, %"


def draw(info: AdaptationInfo) -> Figure:
    """Teachers over A-Steps on the left, gain against student accuracy on the right; no panel for
    what no run has."""
    panels = {_TEACHERS: (info.teachers, _draw_teachers), _GAINS: (info.gains, _draw_gains)}
    there = {label: paint for label, (values, paint) in panels.items() if values}
    figure, drawn = style.new_panels(f"{info.bench}: teacher adaptation", "A-Step", list(there))
    for axes, paint in zip(drawn, there.values(), strict=True):
        paint(axes, info)
        axes.legend(  # under the panel, where it covers nothing
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=2,
            fontsize=style.SMALL,
            frameon=False,
        )
    return figure


def _draw_teachers(axes: Axes, info: AdaptationInfo) -> None:
    """A colour a rung as everywhere, a marker and dashes a teacher; rungs stand side by side."""
    looks = style.looks(list(dict.fromkeys(one.rung for one in info.teachers)))
    for one in info.teachers:
        shape = style.series(one.teacher)
        shift = 0.12 * (list(looks).index(one.rung) - (len(looks) - 1) / 2)
        x = [step + shift for step in range(1, len(one.before) + 1)]
        after, before = ([100 * y for y in ys] for ys in (one.after, one.before))
        how: dict[str, Any] = {
            "color": looks[one.rung].colour,
            "marker": shape.marker,
            "markersize": 4,
        }
        label = f"{one.rung}, teacher {one.teacher}"
        axes.plot(x, after, linestyle=shape.dashes, label=label, **how)
        axes.plot(x, before, linestyle="", markerfacecolor="white", **how)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_gains(axes: Axes, info: AdaptationInfo) -> None:
    axes.set_xlabel("synergy gain over the best teacher, points")
    axes.axvline(0, color=style.BOUNDARY, linestyle=":", linewidth=1, zorder=0)
    for rung, look in style.looks(rung_order({one.rung for one in info.gains})).items():
        of = [one for one in info.gains if one.rung == rung]
        xs, ys = [100 * one.gain for one in of], [100 * one.student for one in of]
        axes.plot(xs, ys, color=look.colour, marker=look.marker, linestyle="", label=rung)
