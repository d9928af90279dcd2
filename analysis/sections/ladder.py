"""The ladder: what each rung gives against the best control, what it costs, and what is claimed."""

from analysis.claim_words import (
    attrition,
    little_to_teach,
    sentence,
    sentences,
    summary,
    tries,
)
from analysis.claims import Family, family
from analysis.figures import accuracy_cost, learning_curves, style
from analysis.figures.differences import differences, draw_differences
from analysis.ladder_numbers import (
    EPOCH_METRICS,
    RUNG_ORDER,
    LadderRow,
    is_rung,
    label_of,
    ladder_table,
    table_frame,
    teachers_table,
    with_epoch_costs,
)
from analysis.report_model import (
    BETTER,
    WORSE,
    MissingRun,
    ReportFigure,
    Section,
    Table,
    seeds_caption,
)
from analysis.runs import select
from analysis.sections.claims_table import claim_notes, claims_table
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
from analysis.selection.filters import MARGIN
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
    found = family(bench_runs, kept)
    margin = margin_of(bench_runs, found)
    tuned = select(
        bench_runs.runs, stage="finetune", bench=bench_runs.bench, needs=metrics.VAL_TOP1
    ).kept
    teachers = teachers_table(tuned)
    little = little_to_teach(kept, teachers, bench_runs.bench)
    shown = shown_with(bench_runs.ladder, bench_runs.bench)
    unlike = tuple(f"{text}." for text in not_shared(kept, bench_runs.bench))
    lost = attrition(found, table)
    return Section(
        "ladder",
        bench_runs.bench,
        "Ladder",
        sentences=(*lost, *sentences(found), *shown),
        summary=(*lost, *summary(found), *shown),
        tables=(
            Table("Accuracy", accuracy_block(rows, _marks(found))),
            Table("Cost and fusion", cost_block(rows)),
            *((Table("What is claimed", claims_table(found, margin)),) if found.claims else ()),
            *((Table("Teachers", teachers_block(teachers)),) if teachers else ()),
        ),
        figures=_figures(bench_runs, kept, history, table, found),
        gaps=gaps,
        notes=(
            *interval_notes(table, kept),
            *validation_notes(kept),
            *fusion_notes(rows),
            *claim_notes(found, margin),
            *notes,
        ),
        run_ids=(*kept["run_id"], *tuned["run_id"]),
        frame=table_frame(table),
        warnings=(
            *(sentence(claim) for claim in found.claims if claim.twin),
            *tries(found, kept),
            *little,
            *unlike,
        ),
    )


def alone(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench with the health of its runs, for a report of the ladder alone."""
    return with_health(section(bench_runs), bench_runs)


def _figures(bench_runs, kept, history, table, found) -> tuple[ReportFigure, ...]:
    bench = bench_runs.bench
    counts = seeds_caption((label_of(row.rung), row.test.n) for row in table.rows)
    curves = learning_curves.learning_curves(kept, history, bench)
    cost = accuracy_cost.draw_accuracy_cost(accuracy_cost.accuracy_cost(table, bench))
    apart = differences(found)
    first = ReportFigure(
        f"differences_{bench}",
        draw_differences(apart),
        f"What each rung gives on {bench} against {label_of(apart.control)}, the control that is "
        "best on validation: "
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


def _marks(found: Family) -> dict[str, str]:
    """The mark of each rung whose claim against the controls is significant."""
    of_rungs = [claim for claim in found.claims if claim.of_control and claim.significant]
    return {claim.rung: BETTER if claim.better else WORSE for claim in of_rungs}


def margin_of(bench_runs: BenchRuns, found: Family) -> float:
    """The margin of equivalence: as given, as declared, or half a point."""
    for margin in (bench_runs.margin, found.primary.margin):
        if margin is not None:
            return margin
    return MARGIN


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
