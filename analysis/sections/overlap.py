"""Student accuracy against the overlap of the teachers' classes."""

from dataclasses import replace
from typing import NamedTuple

from matplotlib.figure import Figure

from analysis import tags
from analysis.cells import accuracy_cell, paired_cell
from analysis.claim_words import p_value, sentence
from analysis.claims import Claim, family
from analysis.figures import style
from analysis.ladder_numbers import is_rung, label_of, ladder_table, rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import ALONE, RUNG_COLUMNS, by_overlap
from analysis.stats import Interval

COMPARED = ("CE", "KD", "L3")  # what a first study runs, at these overlaps in percent
OVERLAPS = (0, 50, 100)
_FULL = 100.0  # of teachers that were trained on all classes; their runs have no tag


class OverlapRow(NamedTuple):
    """A rung at one overlap: test accuracy over seeds, less KD's at the same overlap, and its claim
    against the controls there."""

    overlap: float
    rung: str
    test: Interval
    vs_kd: Interval
    claim: Claim | None


class OverlapInfo(NamedTuple):
    """Rows by rung, then by overlap in percent. A student without teachers is the same at all of
    them."""

    bench: str
    rows: tuple[OverlapRow, ...]
    run_ids: tuple[str, ...] = ()

    @property
    def overlaps(self) -> list[float]:
        """The overlaps of the teachers that some student had."""
        return sorted({row.overlap for row in self.rows if row.rung not in ALONE})


def overlap_info(bench_runs: BenchRuns) -> OverlapInfo:
    """One configuration a rung and overlap; the claims are those of the ladder of each overlap."""
    runs = by_overlap(bench_runs.runs)
    rows, used = list[OverlapRow](), list[str]()
    for label, of in runs.groupby(column(runs, RUNG_COLUMNS[0])):
        found = _of_overlap(replace(bench_runs, bench=str(label), runs=of))
        rows += found.rows
        used += found.run_ids
    order = rung_order({row.rung for row in rows})
    rows.sort(key=lambda row: (order.index(row.rung), row.overlap))
    return OverlapInfo(bench_runs.bench, tuple(rows), tuple(dict.fromkeys(used)))


def _of_overlap(bench_runs: BenchRuns) -> OverlapInfo:
    kept = bench_runs.kept
    tagged = column(kept, f"tags.{tags.OVERLAP}").dropna()
    overlap = float(tagged.iloc[0]) if len(tagged) else _FULL
    claims = family(bench_runs)
    rows = tuple(
        OverlapRow(overlap, row.rung, row.test, row.vs_kd, claims.of(row.rung))
        for row in ladder_table(kept).rows
    )
    return OverlapInfo(bench_runs.bench, rows, tuple(column(kept, "run_id").dropna()))


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    info = overlap_info(bench_runs)
    title = "Teacher overlap"
    if info.overlaps in ([], [_FULL]):
        return Section("overlap", bench_runs.bench, title, gaps=(_nothing(bench_runs),))
    caption = "By overlap (differences at the same overlap; p of the claim against each control)"
    return Section(
        "overlap",
        bench_runs.bench,
        title,
        sentences=_sentences(info),
        tables=(Table(caption, block(info)),),
        figures=(ReportFigure(f"overlap_{info.bench}", draw(info), _caption(info)),),
        gaps=_gaps(bench_runs, info),
        run_ids=info.run_ids,
        summary=_summary(info),
    )


def _nothing(bench_runs: BenchRuns) -> MissingRun:
    command = bench_runs.multirun(cfg=",".join(COMPARED), overlap=",".join(map(str, OVERLAPS)))
    return MissingRun("no run with overlapping teachers has finished", command)


def _gaps(bench_runs: BenchRuns, info: OverlapInfo) -> tuple[MissingRun, ...]:
    """What some overlaps have and others lack; a student without teachers needs no overlap."""
    there = {(row.rung, row.overlap) for row in info.rows}
    rungs = [rung for rung in dict.fromkeys(row.rung for row in info.rows) if rung not in ALONE]
    return tuple(
        MissingRun(
            f"{label_of(rung)} at {overlap:g} % overlap has not finished",
            bench_runs.multirun((), overlap=f"{overlap:g}", **_named(rung)),
        )
        for rung in rungs
        for overlap in info.overlaps
        if (rung, overlap) not in there
    )


def _named(rung: str) -> dict[str, object]:
    return {"cfg": rung} if is_rung(rung) else {"method": rung}


def _sentences(info: OverlapInfo) -> tuple[str, ...]:
    return tuple(
        f"At {row.overlap:g} % overlap: {sentence(row.claim)}"
        for row in info.rows
        if row.claim is not None
    )


def _summary(info: OverlapInfo) -> tuple[str, ...]:
    """What is significant, or that nothing is."""
    significant = [
        f"At {row.overlap:g} % overlap: {sentence(row.claim)}"
        for row in info.rows
        if row.claim is not None and row.claim.significant
    ]
    at = ", ".join(f"{overlap:g}" for overlap in info.overlaps)
    return tuple(significant) or (f"No significant difference to the controls at {at} % overlap.",)


def block(info: OverlapInfo) -> TextTable:
    """A row a rung and overlap; one for a student without teachers."""
    header = ("rung", "overlap, %", "n", "test, %", "vs KD, points", "p, Holm")
    lines = {
        (
            label_of(row.rung),
            "all" if row.rung in ALONE else f"{row.overlap:g}",
            str(row.test.n),
            accuracy_cell(row.test),
            "–" if row.rung in ALONE else paired_cell(row.vs_kd),
            "–" if row.claim is None else p_value(row.claim.adjusted),
        ): None
        for row in info.rows
    }
    return TextTable(header, tuple(lines))


def _caption(info: OverlapInfo) -> str:
    shown = {_place(row): row.test.n for row in info.rows}
    counts = seeds_caption(shown.items())
    return (
        f"Test accuracy on {info.bench} against the share of the classes that both teachers know; "
        f"bars are 95 % t-intervals; {counts}."
    )


def _place(row: OverlapRow) -> str:
    """`L3 at 50 %`, or `CE`, which is the same everywhere."""
    name = label_of(row.rung)
    return name if row.rung in ALONE else f"{name} at {row.overlap:g} %"


def draw(info: OverlapInfo) -> Figure:
    """A line a rung."""
    figure, axes = style.new_figure(
        f"{info.bench}: overlap of the teachers", "overlap of the classes, %", "test top-1, %"
    )
    for rung, look in style.looks(list(dict.fromkeys(row.rung for row in info.rows))).items():
        of = [row for row in info.rows if row.rung == rung]
        x, tests = [row.overlap for row in of], [row.test for row in of]
        style.draw_intervals(axes, x, tests, look, label_of(rung), scale=100)
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
