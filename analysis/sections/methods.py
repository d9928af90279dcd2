"""All methods on one bench, paired by seed."""

import math
from typing import NamedTuple

from matplotlib.figure import Figure

from analysis import tags
from analysis.cells import (
    accuracy_cell,
    accuracy_text,
    number,
    paired_cell,
    percent,
)
from analysis.claim_words import p_value, sentence
from analysis.claims import Family, family
from analysis.figures import style
from analysis.ladder_numbers import CONTROLS, label_of, ladder_table
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.sections.published import published
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS, not_shared
from analysis.stats import NO_INTERVAL, Interval
from analysis.words import counted

BASELINES = ("ce", "kd", "fitnet", "at", "crd", "dkd", "dist", "kd_ls")
OURS = ("L4", "L3", "L2", "L1", "L0")  # the highest rung that ran


class MethodRow(NamedTuple):
    """A method: test accuracy; less the reference's, paired by seed; `p` is the ladder's claim of
    it against each control, after Holm; its time; and what the literature prints (NaN: nothing)."""

    method: str
    test: Interval
    difference: Interval
    p: float
    seconds: float
    published: float = math.nan


class MethodsInfo(NamedTuple):
    """Methods by falling mean accuracy; `reference` is what they are compared with, the
    control that is best on validation ("": no control has finished)."""

    bench: str
    reference: str
    rows: tuple[MethodRow, ...]
    mixing: str
    claims: Family


def methods_info(bench_runs: BenchRuns) -> MethodsInfo:
    """The baselines, the controls and the highest rung that the kept runs have."""
    kept, bench = bench_runs.kept, bench_runs.bench
    table = ladder_table(kept)
    of_bench = {row.rung: row for row in table.rows if row.bench == bench}
    ours = next(([rung] for rung in OURS if rung in of_bench), [])
    there = [m for m in dict.fromkeys([*CONTROLS, *BASELINES, *ours]) if m in of_bench]
    found = family(bench_runs)
    to_control = {one.rung: one.difference.interval for one in found.to_control}
    students = set(column(kept, f"tags.{tags.STUDENT}").dropna())
    rows = []
    for method in there:
        row, claim = of_bench[method], found.of(method)
        difference = to_control.get(method, NO_INTERVAL)
        p = math.nan if claim is None else claim.adjusted
        printed = published(bench, method, students)
        rows.append(MethodRow(method, row.test, difference, p, row.seconds, printed))
    rows.sort(key=lambda row: -row.test.mean)
    alphas = column(kept, "params.mix.mixup_alpha"), column(kept, "params.mix.cutmix_alpha")
    mixes = any((one.astype(float) > 0).any() for one in alphas)
    mixing = "with" if mixes else "without"
    return MethodsInfo(bench, found.control, tuple(rows), mixing, found)


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    info = methods_info(bench_runs)
    there = {row.method for row in info.rows}
    gaps = _gaps(bench_runs, there)
    if not info.rows:
        return Section("methods", bench_runs.bench, "Methods", gaps=gaps)
    kept = bench_runs.kept[column(bench_runs.kept, RUNG_COLUMNS[1]).isin(there)]
    caption = "Test accuracy by method"
    if info.reference:
        reference = label_of(info.reference)
        caption = f"Differences to {reference}, by seed; p of the claim against each control"
    return Section(
        "methods",
        bench_runs.bench,
        "Methods",
        sentences=_sentences(info),
        tables=(Table(caption, block(info)),),
        figures=(ReportFigure(f"methods_{info.bench}", draw(info), _caption(info)),),
        gaps=gaps,
        run_ids=tuple(kept["run_id"]),
        # As the ladder says it, so that a report of both says it once.
        warnings=tuple(f"{text}." for text in not_shared(bench_runs.kept, bench_runs.bench)),
    )


def _gaps(bench_runs: BenchRuns, there: set[str]) -> tuple[MissingRun, ...]:
    # The rung CE is the objective of the baseline ce.
    absent = [n for n in BASELINES if n not in there and not (n == "ce" and "CE" in there)]
    found = []
    if absent:
        command = bench_runs.multirun(method=",".join(absent))
        what = f"baselines that have not finished (with default weights): {', '.join(absent)}"
        found.append(MissingRun(what, command))
    if not there & set(OURS):
        command = bench_runs.multirun(cfg=OURS[0])
        found.append(MissingRun(f"{OURS[0]} has not finished", command))
    return tuple(found)


def _sentences(info: MethodsInfo) -> tuple[str, ...]:
    first = info.rows[0]
    texts = [
        f"Highest mean test accuracy of {counted(len(info.rows), 'method')}: "
        f"{label_of(first.method)}, {accuracy_text(first.test)} (n = {first.test.n})."
    ]
    claimed = [info.claims.of(row.method) for row in info.rows]
    known = [claim for claim in claimed if claim is not None]
    texts += [sentence(claim) for claim in known if claim.significant]
    if not info.reference:
        controls = ", ".join(map(label_of, CONTROLS))
        texts.append(f"Nothing to compare with: none of {controls} has finished.")
    elif not any(claim.shown.difference.decides for claim in known):
        texts.append("Nothing is concluded: no method shares three seeds with a control.")
    elif len(texts) == 1:
        texts.append("No method differs significantly from the controls.")
    return tuple(texts)


def block(info: MethodsInfo) -> TextTable:
    """A row a method; with a column of published numbers where the literature has this pair."""
    against = f"vs {label_of(info.reference)}, points" if info.reference else "difference, points"
    header = ("method", "n", "test, %", against, "p", "time, s")
    rows = [
        (
            label_of(row.method),
            str(row.test.n),
            accuracy_cell(row.test),
            paired_cell(row.difference),
            p_value(row.p),
            number(row.seconds),
        )
        for row in info.rows
    ]
    if all(math.isnan(row.published) for row in info.rows):
        return TextTable(header, tuple(rows))
    printed = [percent(row.published) for row in info.rows]
    return TextTable(
        (*header, "published, %"), tuple((*r, p) for r, p in zip(rows, printed, strict=True))
    )


def _caption(info: MethodsInfo) -> str:
    counts = seeds_caption((label_of(row.method), row.test.n) for row in info.rows)
    dashed = f" Dashed: the mean of {label_of(info.reference)}." if info.reference else ""
    return (
        f"Test accuracy on {info.bench} ({info.mixing} the bench's mixing): "
        f"{style.means_caption(row.test for row in info.rows)}; {counts}.{dashed}"
    )


def draw(info: MethodsInfo) -> Figure:
    """One line a method, the best on top."""
    figure, axes = style.new_figure(f"{info.bench}: methods", "test top-1, %", "")
    figure.set_size_inches(style.WIDTH, 1.2 + 0.32 * len(info.rows))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.FAINT, linewidth=0.5)
    looks = style.looks([row.method for row in info.rows])
    for y, row in enumerate(reversed(info.rows)):
        look = looks[row.method]
        axes.errorbar(
            [100 * row.test.mean],
            [y],
            xerr=style.whiskers([row.test], 100),
            color=look.colour,
            marker=look.marker,
            capsize=3,
        )
    axes.set_yticks(
        range(len(info.rows)),
        [f"{label_of(r.method)} (n = {r.test.n})" for r in reversed(info.rows)],
    )
    axes.set_ylim(-0.6, len(info.rows) - 0.4)
    for row in info.rows:
        if row.method == info.reference:
            axes.axvline(
                100 * row.test.mean, color=style.BOUNDARY, linestyle="--", linewidth=1, zorder=0
            )
    return figure
