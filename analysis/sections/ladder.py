"""The ladder: what each rung gives against the best control, what it costs, and what is claimed."""

import math

from analysis.cells import number, paired_cell, points
from analysis.claims import (
    LEVEL,
    VISIBLE,
    Claim,
    claims,
    control_sentence,
    family_size,
    little_to_teach,
    p_value,
    sentence,
    sentences,
)
from analysis.figures import accuracy_cost, learning_curves, style
from analysis.figures.differences import differences, draw_differences
from analysis.ladder_numbers import (
    EPOCH_METRICS,
    RUNG_ORDER,
    LadderRow,
    LadderTable,
    best_control,
    is_rung,
    label_of,
    ladder_table,
    table_frame,
    teachers_table,
    with_epoch_costs,
)
from analysis.report_model import (
    MissingRun,
    ReportFigure,
    Section,
    Table,
    TextTable,
    counted,
    seeds_caption,
)
from analysis.runs import select
from analysis.sections.health import with_health
from analysis.sections.ladder_tables import (
    accuracy_block,
    cost_block,
    fusion_notes,
    interval_notes,
    left_out_notes,
    teachers_block,
    validation_notes,
)
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import not_shared, shown_with
from trainers import metrics


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    history = bench_runs.history(bench_runs.kept, (*EPOCH_METRICS, *learning_curves.CURVE_METRICS))
    kept = with_epoch_costs(bench_runs.kept, history)
    table = ladder_table(kept)
    rows = list(table.rows)
    gaps = _gaps(bench_runs, rows)
    notes = tuple(left_out_notes(bench_runs.ladder.left_out))
    if not rows:
        return Section("ladder", bench_runs.bench, "Ladder", gaps=gaps, notes=notes)
    found = claims(kept, table, bench_runs.bench, bench_runs.primary)
    tuned = select(
        bench_runs.runs, stage="finetune", bench=bench_runs.bench, needs=metrics.VAL_TOP1
    ).kept
    teachers = teachers_table(tuned)
    little = little_to_teach(kept, teachers, bench_runs.bench)
    shown = shown_with(bench_runs.ladder, bench_runs.bench)
    unlike = tuple(f"{text}." for text in not_shared(kept, bench_runs.bench))
    return Section(
        "ladder",
        bench_runs.bench,
        "Ladder",
        sentences=(
            *sentences(table, bench_runs.bench, found),
            *little,
            *shown,
        ),
        summary=(*_summary(table, bench_runs, found), *shown),
        tables=(
            Table("Accuracy", accuracy_block(rows)),
            Table("Cost and fusion", cost_block(rows)),
            *((Table("What is claimed", claims_table(found)),) if found else ()),
            *((Table("Teachers", teachers_block(teachers)),) if teachers else ()),
        ),
        figures=_figures(bench_runs, kept, history, table, found),
        gaps=gaps,
        notes=(
            *unlike,
            *interval_notes(table),
            *validation_notes(kept),
            *fusion_notes(rows),
            *_claim_notes(found, bench_runs.primary),
            *notes,
        ),
        run_ids=(*kept["run_id"], *tuned["run_id"]),
        frame=table_frame(table),
        warnings=(*(sentence(claim) for claim in found if claim.twin), *little, *unlike),
    )


def alone(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench with the health of its runs, for a report of the ladder alone."""
    return with_health(section(bench_runs), bench_runs)


def _summary(
    table: LadderTable, bench_runs: BenchRuns, found: tuple[Claim, ...]
) -> tuple[str, ...]:
    """The primary claim, every significant difference, and the differences to the best control
    that are not significant."""
    control, rung = best_control(table, bench_runs.bench), bench_runs.primary
    if control is None:
        return sentences(table, bench_runs.bench, found)
    of_control = [c for c in found if c.reference == control.rung and not c.primary]
    texts = [sentence(c) for c in found if not c.primary and (c.significant or c.twin)]
    silent = [c for c in of_control if not c.significant and not c.twin]
    if tried := [label_of(c.rung) for c in silent if c.interval.n > 1]:
        texts.append(
            f"Not significantly different from {label_of(control.rung)}: {', '.join(tried)}."
        )
    if single := [label_of(c.rung) for c in silent if c.interval.n < 2]:
        texts.append(f"Fewer than two seeds, so no conclusion: {', '.join(single)}.")
    if not any(c.primary for c in found):
        texts.insert(0, f"Primary claim ({rung} against the best control): no run of {rung}.")
    primary = [f"Primary claim: {sentence(c)}" for c in found if c.primary]
    return (*primary, control_sentence(table, control), *texts)


def _figures(bench_runs, kept, history, table, found) -> tuple[ReportFigure, ...]:
    bench = bench_runs.bench
    counts = seeds_caption((label_of(row.rung), row.test.n) for row in table.rows)
    curves = learning_curves.learning_curves(kept, history, bench)
    cost = accuracy_cost.draw_accuracy_cost(accuracy_cost.accuracy_cost(table, bench))
    apart = differences(table, bench, found)
    first = ReportFigure(
        f"differences_{bench}",
        draw_differences(apart),
        f"What each rung gives on {bench} against {label_of(apart.control)}, the best control: "
        f"{style.means_caption(row.interval for row in apart.rows)}; {counts}.",
    )
    return (
        *([first] if apart.rows else []),
        ReportFigure(
            f"accuracy_cost_{bench}",
            cost,
            f"Test accuracy on {bench} against run time: "
            f"{style.means_caption(row.test for row in table.rows)}; {counts}.",
        ),
        ReportFigure(
            f"learning_curves_{bench}",
            learning_curves.draw_learning_curves(curves),
            learning_curves.curves_caption(curves),
        ),
    )


def claims_table(found: tuple[Claim, ...]) -> TextTable:
    """A row a comparison; the permutation test has a column where some n allows it."""
    permuted = any(not math.isnan(c.permutation) for c in found)
    header = ("claim", "points", "p", "p, Holm", *(("permutation",) * permuted))
    return TextTable(
        (*header, "× time", "seeds needed", "significant"),
        tuple(
            (
                f"{label_of(c.rung)} − {label_of(c.reference)}" + " (primary)" * c.primary,
                paired_cell(c.interval),
                p_value(c.p),
                "–" if c.primary else p_value(c.adjusted),
                *((p_value(c.permutation),) * permuted),
                number(c.times, 2),
                str(c.needed or "–"),
                "yes" if c.significant else "no",
            )
            for c in found
        ),
    )


def _claim_notes(found: tuple[Claim, ...], primary: str) -> tuple[str, ...]:
    notes = [
        f"One primary claim, fixed beforehand: {primary} against the best control, the one of "
        "the highest mean test accuracy (a choice that favours the control). All other "
        f"comparisons share a family-wise level of {100 * LEVEL:g} % (Holm, over "
        f"{counted(family_size(found), 'claim')}). p is of the paired "
        f"t-test. Seeds needed: for a difference of {points(VISIBLE)} points with a power of 80 %."
    ]
    impossible = sorted({c.interval.n for c in found if c.permutation != c.permutation})
    if impossible:
        listed = ", ".join(map(str, impossible))
        notes.append(
            f"Permutation test: not possible at n = {listed}; its smallest p-value, 2/2ⁿ, is "
            "above the level that it would have to reach."
        )
    return tuple(notes)


def _gaps(bench_runs: BenchRuns, rows: list[LadderRow]) -> tuple[MissingRun, ...]:
    """Rungs that are not there, seeds that others have, and too few seeds."""
    seeds = {row.rung: row.seeds for row in rows}
    found = []
    for rung in [rung for rung in RUNG_ORDER if rung not in seeds] + list(seeds):
        absent = [seed for seed in bench_runs.seeds if seed not in seeds.get(rung, ())]
        if absent:
            what = "has not finished"
            if rung in seeds:
                what = f"has no seed {', '.join(map(str, absent))}"
            of_rung = {"cfg": rung} if is_rung(rung) else {"method": rung}
            found.append(MissingRun(f"{rung} {what}", bench_runs.multirun(absent, **of_rung)))
    return tuple(found)
