"""What partial freezing saves and what it costs: trainable share, memory, step time, accuracy."""

import math
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis.cells import accuracy_cell, number, percent
from analysis.claim_words import sentence
from analysis.claims import Claim, family
from analysis.figures import style
from analysis.ladder_numbers import B_STEP, fused, ratio, rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import by_step, column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from analysis.stats import (
    NO_INTERVAL,
    Interval,
    mean_interval,
    pareto_front,
    share_interval,
)
from trainers import metrics

METRICS = (
    metrics.STAGE_STEP,
    metrics.STUDENT_TRAINABLE,
    metrics.STUDENT_TRAINABLE_REQUESTED,
    metrics.STEP_SECONDS,
    metrics.PEAK_MEMORY,
)
PAIR = ("L4", "L3")  # with and without
_TIMES = "Wall times: what else the machines did meanwhile is in them."
_TOLERANCE = 0.01  # of the parameters


class FreezingRow(NamedTuple):
    """A rung, means over B-Step epochs and seeds; memory is the highest of any epoch."""

    rung: str
    levels: str
    trainable: float
    requested: float
    step_seconds: Interval
    memory_mb: float
    test: Interval
    front: bool = False


class FreezingInfo(NamedTuple):
    """The rungs of a bench with a fusion module; `times`: the time of the steps of `PAIR` as a
    ratio, by seed.

    Controls and methods of the literature freeze nothing and have steps of another kind."""

    bench: str
    rows: tuple[FreezingRow, ...]
    times: Interval = NO_INTERVAL


def freezing_info(kept: pd.DataFrame, history: pd.DataFrame, bench: str) -> FreezingInfo:
    """`history` holds `METRICS` of the kept runs."""
    kept = fused(kept)
    wide = by_step(history)
    in_b = wide[column(wide, metrics.STAGE_STEP).eq(B_STEP)]
    by_run = pd.DataFrame(
        {name: column(in_b, name).groupby("run_id").mean() for name in METRICS[1:4]}
    )
    by_run[metrics.PEAK_MEMORY] = column(wide, metrics.PEAK_MEMORY).groupby("run_id").max()
    rows = []
    for rung in rung_order(column(kept, RUNG_COLUMNS[1]).dropna().unique()):
        runs = kept[kept[RUNG_COLUMNS[1]].eq(rung)]
        rows.append(_row(rung, runs, by_run.reindex(runs["run_id"])))
    front = pareto_front([r.step_seconds.mean for r in rows], [r.test.mean for r in rows])
    rows = [row._replace(front=on) for row, on in zip(rows, front, strict=True)]
    return FreezingInfo(bench, tuple(rows), _times(kept, by_run))


def _times(kept: pd.DataFrame, by_run: pd.DataFrame) -> Interval:
    """The ratio of `PAIR`'s step times over the seeds that both have."""
    with_, without = (
        dict(zip(seeds_of(runs), by_run[metrics.STEP_SECONDS].reindex(runs["run_id"]), strict=True))
        for runs in (kept[column(kept, RUNG_COLUMNS[1]).eq(rung)] for rung in PAIR)
    )
    ratios = [with_[seed] / without[seed] for seed in sorted(with_.keys() & without.keys())]
    return mean_interval([one for one in ratios if math.isfinite(one)])


def _row(rung: str, runs: pd.DataFrame, found: pd.DataFrame) -> FreezingRow:
    levels = column(runs, "params.method.student_levels").dropna()
    seconds = found[metrics.STEP_SECONDS].dropna()
    return FreezingRow(
        rung,
        str(levels.iloc[0]) if len(levels) else "–",
        float(found[metrics.STUDENT_TRAINABLE].mean()),
        float(found[metrics.STUDENT_TRAINABLE_REQUESTED].mean()),
        mean_interval(seconds.tolist()),
        float(found[metrics.PEAK_MEMORY].mean()),
        share_interval(runs[f"metrics.{metrics.TEST_TOP1}"].astype(float).tolist()),
    )


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    kept = fused(bench_runs.kept)
    info = freezing_info(kept, bench_runs.history(kept, METRICS), bench_runs.bench)
    there = {row.rung for row in info.rows}
    claim = family(bench_runs).of(*PAIR)
    gaps = tuple(
        MissingRun(f"{rung} ({what} freezing) has not finished", bench_runs.multirun(cfg=rung))
        for rung, what in zip(PAIR, ("with", "without"), strict=True)
        if rung not in there
    )
    timed = [row for row in info.rows if row.step_seconds.n]
    drawings = (
        (ReportFigure(f"freezing_{info.bench}", draw(info), _caption(info)),) if timed else ()
    )
    return Section(
        "freezing",
        bench_runs.bench,
        "Freezing efficiency",
        sentences=_sentences(info, claim),
        tables=(Table("Cost of a B-Step (means over its epochs and seeds)", block(info)),)
        if info.rows
        else (),
        figures=drawings,
        gaps=gaps,
        notes=(_TIMES,) if timed else (),
        run_ids=tuple(kept["run_id"]),
        warnings=tuple(_other_than_requested(row) for row in info.rows if _differs(row)),
    )


def _differs(row: FreezingRow) -> bool:
    return abs(row.trainable - row.requested) > _TOLERANCE  # False where one is NaN


def _other_than_requested(row: FreezingRow) -> str:
    return (
        f"{row.rung}: {percent(row.trainable)} % of the student moved in the mean, "
        f"{percent(row.requested)} % were requested."
    )


def _sentences(info: FreezingInfo, claim: Claim | None) -> tuple[str, ...]:
    """The claim of the pair as the ladder makes it, then what freezing saves."""
    rows = {row.rung: row for row in info.rows}
    if not set(PAIR) <= rows.keys():
        return ()
    a, b = (rows[rung] for rung in PAIR)
    time, saved = info.times, ""
    if time.n > 1:
        saved = f" [{number(time.low, 2)}, {number(time.high, 2)}]"
    memory = ratio(a.memory_mb, b.memory_mb)
    first = "" if claim is None else f" {sentence(claim)}"
    return (
        f"{a.rung} (freezing) takes {number(time.mean, 2)} × the time of a step of {b.rung} "
        f"(none){saved}, {number(memory, 2)} × its peak memory; {percent(a.trainable)} % of the "
        f"student is trainable in the mean.{first}",
    )


def block(info: FreezingInfo) -> TextTable:
    """A row a rung."""
    header = ("rung", "n", "levels", "trainable, %", "step, ms", "memory, MiB", "test, %")
    return TextTable(
        header,
        tuple(
            (
                row.rung,
                str(row.test.n),
                row.levels,
                percent(row.trainable),
                number(1000 * row.step_seconds.mean, 2),
                number(row.memory_mb),
                accuracy_cell(row.test),
            )
            for row in info.rows
        ),
    )


def _caption(info: FreezingInfo) -> str:
    counts = seeds_caption((row.rung, row.test.n) for row in info.rows)
    return (
        f"Test accuracy on {info.bench} against the mean time of a B-Step's optimiser step; bars "
        f"of both are {style.bars_caption(row.test for row in info.rows)}; {counts}. Dashed: "
        "Pareto front of the means."
    )


def draw(info: FreezingInfo) -> Figure:
    """Accuracy against step time with both intervals."""
    figure, axes = style.new_figure(
        f"{info.bench}: accuracy against step time", "time of a step, ms", "test top-1, %"
    )
    rows = [row for row in info.rows if row.step_seconds.n]
    for row, look in zip(rows, style.looks([row.rung for row in rows]).values(), strict=True):
        axes.errorbar(
            [1000 * row.step_seconds.mean],
            [100 * row.test.mean],
            xerr=style.whiskers([row.step_seconds], 1000),
            yerr=style.whiskers([row.test], 100),
            color=look.colour,
            marker=look.marker,
            linestyle="",
            capsize=3,
            elinewidth=0.8,
            label=f"{row.rung} ({percent(row.trainable)} % trainable)",
        )
    front = sorted((1000 * r.step_seconds.mean, 100 * r.test.mean) for r in rows if r.front)
    line = axes.plot(*zip(*front, strict=True), color=style.BOUNDARY, linestyle="--", zorder=1)
    line[0].set(drawstyle="steps-post", linewidth=1)
    axes.set_xlim(style.view([row.step_seconds for row in rows], scale=1000))
    axes.set_ylim(style.view([row.test for row in rows], scale=100))
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
