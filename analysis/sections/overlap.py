"""Student accuracy against the overlap of the teachers' classes."""

from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis import tags
from analysis.cells import accuracy_cell, paired_cell, points
from analysis.figures import style
from analysis.ladder_numbers import logged_by_seed, rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import Selection, column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS, one_configuration
from analysis.stats import Interval, paired_difference, share_interval

COMPARED = ("CE", "KD", "L4")  # what a first study runs, at these overlaps in percent
OVERLAPS = (0, 50, 100)


class OverlapRow(NamedTuple):
    """A rung at one overlap: test accuracy over seeds, and less KD's at the same overlap."""

    overlap: float
    rung: str
    test: Interval
    vs_kd: Interval


class OverlapInfo(NamedTuple):
    """Rows by rung, then by overlap in percent."""

    bench: str
    rows: tuple[OverlapRow, ...]


def overlap_info(runs: Selection, bench: str) -> tuple[OverlapInfo, pd.DataFrame]:
    """The rows, and the runs that they come from: one configuration a rung and overlap."""
    overlap = pd.to_numeric(column(runs.kept, f"tags.{tags.OVERLAP}"), errors="coerce")
    rows, used = [], [runs.kept[:0]]
    for value in sorted(overlap.dropna().unique()):
        kept = one_configuration(Selection(runs.kept[overlap == value], runs.left_out)).kept
        used.append(kept)
        kd = logged_by_seed(kept, bench, "KD")
        for rung in kept[RUNG_COLUMNS[1]].unique():
            found = logged_by_seed(kept, bench, rung)
            against = paired_difference(found, {} if rung == "KD" else kd)
            rows.append(OverlapRow(float(value), rung, share_interval([*found.values()]), against))
    order = rung_order({row.rung for row in rows})
    rows.sort(key=lambda row: (order.index(row.rung), row.overlap))
    return OverlapInfo(bench, tuple(rows)), pd.concat(used)


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    info, used = overlap_info(bench_runs.finished, bench_runs.bench)
    there = {(row.overlap, row.rung) for row in info.rows}
    overlaps = sorted({row.overlap for row in info.rows}) or list(OVERLAPS)
    gaps = tuple(
        MissingRun(
            f"{rung} at {overlap:g} % overlap has not finished",
            bench_runs.multirun(cfg=rung, overlap=f"{overlap:g}"),
        )
        for overlap in overlaps
        for rung in COMPARED
        if (overlap, rung) not in there
    )
    if not info.rows:
        gaps = (_nothing(bench_runs),)
        return Section("overlap", bench_runs.bench, "Teacher overlap", gaps=gaps)
    return Section(
        "overlap",
        bench_runs.bench,
        "Teacher overlap",
        sentences=_sentences(info),
        tables=(Table("By overlap (95 % t-intervals, differences paired by seed)", block(info)),),
        figures=(ReportFigure(f"overlap_{info.bench}", draw(info), _caption(info)),),
        gaps=gaps,
        run_ids=tuple(used["run_id"]),
    )


def _nothing(bench_runs: BenchRuns) -> MissingRun:
    command = bench_runs.multirun(cfg=",".join(COMPARED), overlap=",".join(map(str, OVERLAPS)))
    return MissingRun("no run with overlapping teachers has finished", command)


def _sentences(info: OverlapInfo) -> tuple[str, ...]:
    return tuple(
        f"{row.rung} − KD at {row.overlap:g} % overlap: {points(row.vs_kd.mean)} points"
        + (f" [{points(row.vs_kd.low)}, {points(row.vs_kd.high)}]" if row.vs_kd.n > 1 else "")
        + f", n = {row.vs_kd.n}."
        for row in info.rows
        if row.vs_kd.n and row.rung != "CE"
    )


def block(info: OverlapInfo) -> TextTable:
    """A row a rung and overlap."""
    header = ("rung", "overlap, %", "n", "test, %", "vs KD, points")
    return TextTable(
        header,
        tuple(
            (
                row.rung,
                f"{row.overlap:g}",
                str(row.test.n),
                accuracy_cell(row.test),
                paired_cell(row.vs_kd),
            )
            for row in info.rows
        ),
    )


def _caption(info: OverlapInfo) -> str:
    counts = seeds_caption((f"{row.rung} at {row.overlap:g} %", row.test.n) for row in info.rows)
    return (
        f"Test accuracy on {info.bench} against the share of the classes that both teachers know; "
        f"bars are 95 % t-intervals; {counts}."
    )


def draw(info: OverlapInfo) -> Figure:
    """A line a rung."""
    figure, axes = style.new_figure(
        f"{info.bench}: overlap of the teachers", "overlap of the classes, %", "test top-1, %"
    )
    for rung, look in style.looks(list(dict.fromkeys(row.rung for row in info.rows))).items():
        of = [row for row in info.rows if row.rung == rung]
        x, tests = [row.overlap for row in of], [row.test for row in of]
        style.draw_intervals(axes, x, tests, look, rung, scale=100)
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
