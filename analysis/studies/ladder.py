"""The ladder: what each rung gives against the best control, what it costs, and what is claimed."""

from analysis import costs, figures, health, style
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
from analysis.configuration import not_shared, shown_with
from analysis.differences import differences, draw_differences
from analysis.evidence import Evidence
from analysis.render import (
    Block,
    accuracy_block,
    cost_block,
    fusion_notes,
    interval_notes,
    left_out_notes,
    paired_cell,
    points,
    teachers_block,
    validation_notes,
)
from analysis.runs import column, select
from analysis.studies.health import read_again
from analysis.study import Drawing, Gap, Study, Table, counted, seeds_caption
from analysis.tables import (
    EPOCH_METRICS,
    RUNG_ORDER,
    LadderRow,
    LadderTable,
    best_control,
    is_rung,
    ladder_table,
    teachers_table,
    with_epoch_costs,
)
from pipeline import names


def study(evidence: Evidence) -> Study:
    """The analysis of one bench."""
    history = evidence.history(evidence.kept, (*EPOCH_METRICS, *figures.CURVE_METRICS))
    kept = with_epoch_costs(evidence.kept, history)
    table = ladder_table(kept)
    rows = list(table.rows)
    gaps = _gaps(evidence, rows)
    notes = tuple(left_out_notes(evidence.ladder.left_out))
    if not rows:
        return Study("ladder", evidence.bench, "Ladder", gaps=gaps, notes=notes)
    found = claims(kept, table, evidence.bench, evidence.primary)
    tuned = select(evidence.runs, stage="finetune", bench=evidence.bench, needs=names.VAL_TOP1).kept
    teachers = teachers_table(tuned)
    little = little_to_teach(kept, teachers, evidence.bench)
    unlike = tuple(f"{text}." for text in not_shared(kept, evidence.bench))
    return Study(
        "ladder", evidence.bench, "Ladder",
        sentences=(
            *sentences(table, evidence.bench, found), *little,
            *shown_with(evidence.ladder, evidence.bench),
        ),
        summary=_summary(table, evidence, found),
        tables=(
            Table("Accuracy", accuracy_block(rows)),
            Table("Cost and fusion", cost_block(rows)),
            *((Table("What is claimed", claims_block(found)),) if found else ()),
            *((Table("Teachers", teachers_block(teachers)),) if teachers else ()),
        ),
        drawings=_drawings(evidence, kept, history, table, found),
        gaps=gaps,
        notes=(
            *unlike, *interval_notes(table), *validation_notes(kept), *fusion_notes(rows),
            *_claim_notes(found, evidence.primary), *notes,
        ),
        run_ids=(*kept["run_id"], *tuned["run_id"]),
        warnings=(*(sentence(claim) for claim in found if claim.twin), *little, *unlike),
    )  # fmt: skip


def alone(evidence: Evidence) -> Study:
    """The analysis of one bench with the health of its runs, as no study of that stands beside
    it."""
    plain = study(evidence)
    stages = column(evidence.runs, f"tags.{names.STAGE}").isin(["distill", "finetune"])
    runs = evidence.runs[stages]
    if runs.empty:
        return plain
    again = read_again(runs, evidence.history(runs, [names.TEST_TOP1]))
    told = health.sentences(runs, again)
    if again or health.warned(runs):
        return plain._replace(warnings=(*plain.warnings, *told))
    return plain._replace(notes=(*plain.notes, *told))


def _summary(table: LadderTable, evidence: Evidence, found: tuple[Claim, ...]) -> tuple[str, ...]:
    """The primary claim, every difference that is shown, and those to the best control that are
    not."""
    control, rung = best_control(table, evidence.bench), evidence.primary
    if control is None:
        return sentences(table, evidence.bench, found)
    of_control = [c for c in found if c.reference == control.rung and not c.primary]
    told = [sentence(c) for c in found if not c.primary and (c.shown or c.twin)]
    silent = [c for c in of_control if not c.shown and not c.twin]
    if tried := [c.rung for c in silent if c.interval.n > 1]:
        told.append(f"No difference to {control.rung} shown: {', '.join(tried)}.")
    if single := [c.rung for c in silent if c.interval.n < 2]:
        told.append(f"Fewer than two seeds, so no conclusion: {', '.join(single)}.")
    if not any(c.primary for c in found):
        told.insert(0, f"Primary claim ({rung} against the best control): no run of {rung}.")
    primary = [f"Primary claim: {sentence(c)}" for c in found if c.primary]
    return (*primary, control_sentence(table, control), *told)


def _drawings(evidence, kept, history, table, found) -> tuple[Drawing, ...]:
    bench = evidence.bench
    counts = seeds_caption((row.rung, row.test.n) for row in table.rows)
    curves = figures.learning_curves(kept, history, bench)
    cost = costs.draw_accuracy_cost(costs.accuracy_cost(table, bench))
    apart = differences(table, bench, found)
    first = Drawing(
        f"differences_{bench}", draw_differences(apart),
        f"What each rung gives on {bench} against {apart.control}, the best control: "
        f"{style.means_caption(row.interval for row in apart.rows)}; {counts}.",
    )  # fmt: skip
    return (
        *([first] if apart.rows else []),
        Drawing(
            f"accuracy_cost_{bench}", cost,
            f"Test accuracy on {bench} against run time: "
            f"{style.means_caption(row.test for row in table.rows)}; {counts}.",
        ),
        Drawing(
            f"learning_curves_{bench}", figures.draw_learning_curves(curves),
            figures.curves_caption(curves),
        ),
    )  # fmt: skip


def claims_block(found: tuple[Claim, ...]) -> Block:
    """A row a comparison."""
    header = (
        "claim", "points", "p", "p, Holm", "p, permutation",
        f"seeds to see {points(VISIBLE).removeprefix('+')}", "shown",
    )  # fmt: skip
    return Block(header, tuple(
        (
            f"{c.rung} − {c.reference}" + " (primary)" * c.primary,
            paired_cell(c.interval), p_value(c.p), "–" if c.primary else p_value(c.adjusted),
            p_value(c.permutation), str(c.needed or "–"), "yes" if c.shown else "no",
        )
        for c in found
    ))  # fmt: skip


def _claim_notes(found: tuple[Claim, ...], primary: str) -> tuple[str, ...]:
    notes = [
        f"One primary claim, fixed beforehand: {primary} against the best control, the one of "
        "the highest mean test accuracy (a choice that favours the control). All other "
        f"comparisons share a family-wise level of {100 * LEVEL:g} % (Holm, over "
        f"{counted(family_size(found), 'claim')}). p is of the paired "
        f"t-test; seeds to see {points(VISIBLE)} points: with a power of 80 %."
    ]
    impossible = sorted({c.interval.n for c in found if c.permutation != c.permutation})
    if impossible:
        listed = ", ".join(map(str, impossible))
        notes.append(
            f"Permutation test: not possible at n = {listed}; its smallest p-value, 2/2ⁿ, is "
            "above the level that it would have to reach."
        )
    return tuple(notes)


def _gaps(evidence: Evidence, rows: list[LadderRow]) -> tuple[Gap, ...]:
    """Rungs that are not there, seeds that others have, and too few seeds."""
    seeds = {row.rung: row.seeds for row in rows}
    found = []
    for rung in [rung for rung in RUNG_ORDER if rung not in seeds] + list(seeds):
        absent = [seed for seed in evidence.seeds if seed not in seeds.get(rung, ())]
        if absent:
            what = "has not finished"
            if rung in seeds:
                what = f"has no seed {', '.join(map(str, absent))}"
            of_rung = {"cfg": rung} if is_rung(rung) else {"method": rung}
            found.append(Gap(f"{rung} {what}", evidence.multirun(absent, **of_rung)))
    return tuple(found)
