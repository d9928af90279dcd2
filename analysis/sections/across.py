"""Student accuracy against a number that makes a problem of its own: the overlap of the teachers'
classes, or the number of labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis.cells import accuracy_cell, paired_cell
from analysis.claim_words import p_value, sentence
from analysis.claims import Claim, family
from analysis.figures import style
from analysis.ladder_numbers import is_rung, label_of, ladder_table, rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS
from analysis.stats import Interval

COMPARED = ("CE", "KD", "L3")  # what a first study runs


class Axis(NamedTuple):
    """The number. `option` sets it, `split` makes a bench of each of its values, `of` reads it of
    the runs of one; `first`: values of a first study; `full`: the value of runs that are not split
    (None: there is none); `same`: rungs that are the same at all values."""

    name: str
    title: str
    option: str
    unit: str  # after a value in a sentence: `0 % overlap`
    head: str  # of the column
    shown: str  # in the caption
    split: Callable[[pd.DataFrame], pd.DataFrame]
    of: Callable[[pd.DataFrame], float]
    first: tuple[int, ...]
    full: float | None = None
    same: tuple[str, ...] = ()
    logarithmic: bool = False


class Row(NamedTuple):
    """A rung at one value: test accuracy over seeds, less KD's at the same value, and its claim
    against the controls there."""

    at: float
    rung: str
    test: Interval
    vs_kd: Interval
    claim: Claim | None


class AcrossInfo(NamedTuple):
    """Rows by rung, then by value."""

    bench: str
    axis: Axis
    rows: tuple[Row, ...]
    run_ids: tuple[str, ...] = ()

    @property
    def values(self) -> list[float]:
        """The values at which a student ran whose numbers depend on it."""
        return sorted({row.at for row in self.rows if row.rung not in self.axis.same})


def across_info(bench_runs: BenchRuns, axis: Axis) -> AcrossInfo:
    """One configuration a rung and value; the claims are those of the ladder of each value."""
    runs = axis.split(bench_runs.runs)
    rows, used = list[Row](), list[str]()
    for label, of in runs.groupby(column(runs, RUNG_COLUMNS[0])):
        found = _of_value(replace(bench_runs, bench=str(label), runs=of), axis)
        rows += found.rows
        used += found.run_ids
    order = rung_order({row.rung for row in rows})
    rows.sort(key=lambda row: (order.index(row.rung), row.at))
    return AcrossInfo(bench_runs.bench, axis, tuple(rows), tuple(dict.fromkeys(used)))


def _of_value(bench_runs: BenchRuns, axis: Axis) -> AcrossInfo:
    kept = bench_runs.kept
    at, claims = axis.of(kept), family(bench_runs)
    rows = tuple(
        Row(at, row.rung, row.test, row.vs_kd, claims.of(row.rung))
        for row in ladder_table(kept).rows
    )
    return AcrossInfo(bench_runs.bench, axis, rows, tuple(column(kept, "run_id").dropna()))


def section(bench_runs: BenchRuns, axis: Axis) -> Section:
    """The analysis of one bench."""
    problems = column(axis.split(bench_runs.runs), RUNG_COLUMNS[0]).nunique()
    info = across_info(bench_runs, axis) if problems > 1 or axis.full is not None else None
    if info is None or info.values in ([], [axis.full]):
        return Section(axis.name, bench_runs.bench, axis.title, gaps=(_nothing(bench_runs, axis),))
    caption = f"By {axis.title.lower()} (differences at the same value; p of the claim against "
    return Section(
        axis.name,
        bench_runs.bench,
        axis.title,
        sentences=_sentences(info),
        tables=(Table(f"{caption}each control)", block(info)),),
        figures=(ReportFigure(f"{axis.name}_{info.bench}", draw(info), _caption(info)),),
        gaps=_gaps(bench_runs, info),
        run_ids=info.run_ids,
        summary=_summary(info),
    )


def _nothing(bench_runs: BenchRuns, axis: Axis) -> MissingRun:
    given = {"cfg": ",".join(COMPARED), axis.option: ",".join(map(str, axis.first))}
    return MissingRun(
        f"no run at several values of {axis.option} has finished", bench_runs.multirun((), **given)
    )


def _gaps(bench_runs: BenchRuns, info: AcrossInfo) -> tuple[MissingRun, ...]:
    """What some values have and others lack."""
    there, axis = {(row.rung, row.at) for row in info.rows}, info.axis
    rungs = [rung for rung in dict.fromkeys(row.rung for row in info.rows) if rung not in axis.same]
    return tuple(
        MissingRun(
            f"{label_of(rung)} at {value:g} {axis.unit} has not finished",
            bench_runs.multirun((), **{axis.option: f"{value:g}"}, **_named(rung)),
        )
        for rung in rungs
        for value in info.values
        if (rung, value) not in there
    )


def _named(rung: str) -> dict[str, str]:
    return {"cfg": rung} if is_rung(rung) else {"method": rung}


def _sentences(info: AcrossInfo) -> tuple[str, ...]:
    return tuple(
        f"At {row.at:g} {info.axis.unit}: {sentence(row.claim)}"
        for row in info.rows
        if row.claim is not None
    )


def _summary(info: AcrossInfo) -> tuple[str, ...]:
    """What is significant, or that nothing is."""
    unit = info.axis.unit
    significant = [
        f"At {row.at:g} {unit}: {sentence(row.claim)}"
        for row in info.rows
        if row.claim is not None and row.claim.significant
    ]
    at = ", ".join(f"{value:g}" for value in info.values)
    return tuple(significant) or (f"No significant difference to the controls at {at} {unit}.",)


def block(info: AcrossInfo) -> TextTable:
    """A row a rung and value; one for a student that is the same at all of them."""
    header = ("rung", info.axis.head, "n", "test, %", "vs KD, points", "p, Holm")
    same = info.axis.same
    lines = {
        (
            label_of(row.rung),
            "all" if row.rung in same else f"{row.at:g}",
            str(row.test.n),
            accuracy_cell(row.test),
            "–" if row.rung in same else paired_cell(row.vs_kd),
            "–" if row.claim is None else p_value(row.claim.adjusted),
        ): None
        for row in info.rows
    }
    return TextTable(header, tuple(lines))


def _caption(info: AcrossInfo) -> str:
    shown = {_place(row, info.axis): row.test.n for row in info.rows}
    counts = seeds_caption(shown.items())
    return (
        f"Test accuracy on {info.bench} against {info.axis.shown}; bars are 95 % t-intervals; "
        f"{counts}."
    )


def _place(row: Row, axis: Axis) -> str:
    """`L3 at 50`, or `CE`, which is the same everywhere."""
    name = label_of(row.rung)
    return name if row.rung in axis.same else f"{name} at {row.at:g}"


def draw(info: AcrossInfo) -> Figure:
    """A line a rung."""
    axis = info.axis
    figure, axes = style.new_figure(
        f"{info.bench}: {axis.title.lower()}", axis.head, "test top-1, %"
    )
    for rung, look in style.looks(list(dict.fromkeys(row.rung for row in info.rows))).items():
        of = [row for row in info.rows if row.rung == rung]
        x, tests = [row.at for row in of], [row.test for row in of]
        style.draw_intervals(axes, x, tests, look, label_of(rung), scale=100)
    if axis.logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(info.values, [f"{value:g}" for value in info.values])
        axes.minorticks_off()
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
