"""Everything the store says about a ladder: sentences first, then tables and figures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis import tags
from analysis.claims import claims, little_to_teach, sentences, steps_block
from analysis.figures import accuracy_cost, learning_curves
from analysis.figures.differences import differences, draw_differences
from analysis.ladder_table import (
    EPOCH_METRICS,
    LadderRow,
    LadderTable,
    TeacherRow,
    ladder_table,
    teachers_table,
    with_epoch_costs,
)
from analysis.render.text import (
    TextTable,
    accuracy_block,
    as_command,
    as_markdown,
    as_text,
    cost_block,
    fusion_notes,
    interval_notes,
    left_out_notes,
    teachers_block,
    validation_notes,
    wrapped,
)
from analysis.runs import Selection, column, select
from analysis.sections import run_warnings
from analysis.sections.health import read_again
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import by_overlap, not_shared, one_configuration, shown_with
from analysis.selection.experiment import ExperimentReader
from analysis.selection.filters import RunFilter
from analysis.stats import Interval
from trainers import metrics


@dataclass(frozen=True)
class Report:
    """`text` is for a terminal; `table` holds the ladder as numbers (fractions, s, MiB)."""

    text: str
    markdown: str
    table: pd.DataFrame
    draw: Callable[[], dict[str, Figure]]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """By the names of their files; drawn when first asked for."""
        return self.draw()


class ReportSection(NamedTuple):
    """A heading with what stands under it."""

    title: str
    sentences: tuple[str, ...]
    blocks: tuple[TextTable, ...]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()  # what the sentences say to type


def analyze(
    uri: str, experiment: str, bench: str | None = None, *, asked: RunFilter | None = None
) -> Report:
    """Read an experiment (one bench of it, the runs `asked` for, or all) and report the ladder
    and its teachers.

    Where nothing has finished the report says so and what to type. Figures are named
    `differences_<bench>` (where rungs share a seed with a control), `learning_curves_<bench>` and
    `accuracy_cost_<bench>`.

    Raises ValueError where there is no such store or experiment.
    """
    return report(ExperimentReader(uri, experiment, asked or RunFilter(bench)))


def report(reading: ExperimentReader) -> Report:
    """`analyze` of an experiment that was read already."""
    runs, bench, experiment = reading.runs, reading.asked.bench, reading.experiment
    distilled = select(runs, stage="distill", bench=bench)
    ladder = one_configuration(distilled._replace(kept=by_overlap(distilled.kept)))
    tuned = select(runs, stage="finetune", bench=bench, needs=metrics.VAL_TOP1)
    values = (*EPOCH_METRICS, *learning_curves.CURVE_METRICS)
    history = reading.history(ladder.kept["run_id"].tolist(), values)
    kept = with_epoch_costs(ladder.kept, history)
    table = ladder_table(kept)
    left_out = pd.concat([ladder.left_out, tuned.left_out]).drop_duplicates("run_id")
    counted = Selection(kept, ladder.left_out)
    spread = by_overlap(runs)
    of_bench = column(spread, f"tags.{tags.BENCH}")
    sections = [
        _bench_section(
            experiment,
            counted,
            table,
            BenchRuns(name, spread[of_bench.eq(name)], reading.history, reading.asked.primary),
        )
        for name in _benches(table)
    ] or [_nothing_finished(experiment, reading.asked)]
    teachers = teachers_table(tuned.kept)
    little = [said for name in _benches(table) for said in little_to_teach(kept, teachers, name)]
    sections.append(_teachers_section(teachers, tuple(little)))
    trained = _trained(runs, bench)
    again = read_again(trained, reading.history(trained["run_id"].tolist(), [metrics.TEST_TOP1]))
    sections.append(ReportSection("Health", run_warnings.sentences(trained, again), ()))
    notes = [*(interval_notes(table) if table.rows else ()), *left_out_notes(left_out)]
    sections.append(ReportSection("Notes", (), (), tuple(notes)))
    return Report(
        text=_text(experiment, sections),
        markdown=_markdown(experiment, sections),
        table=table_frame(table),
        draw=lambda: _figures(kept, history, table, reading.asked.primary),
    )


def _trained(runs: pd.DataFrame, bench: str | None) -> pd.DataFrame:
    """The runs of both stages (of a bench), whatever their status."""
    stages = [select(runs, stage=stage, bench=bench) for stage in ("finetune", "distill")]
    return pd.concat([part for one in stages for part in one])


def table_frame(table: LadderTable) -> pd.DataFrame:
    """The ladder with one column a number, intervals as `<name>_n _mean _low _high`."""
    columns = [name for field in LadderRow._fields for name in _columns(field)]
    return pd.DataFrame([_flat(row) for row in table.rows], columns=columns)


_INTERVALS = ("test", "vs_ce", "vs_kd")


def _columns(field: str) -> list[str]:
    return [f"{field}_{part}" for part in Interval._fields] if field in _INTERVALS else [field]


def _flat(row: LadderRow) -> dict[str, object]:
    flat: dict[str, object] = {}
    for field, value in row._asdict().items():
        if field == "seeds":
            value = " ".join(map(str, value))
        parts = value if isinstance(value, Interval) else (value,)
        flat |= dict(zip(_columns(field), parts, strict=True))
    return flat


def _benches(table: LadderTable) -> list[str]:
    return list(dict.fromkeys(row.bench for row in table.rows))


def _bench_section(
    experiment: str, counted: Selection, table: LadderTable, bench_runs: BenchRuns
) -> ReportSection:
    kept, bench = counted.kept, bench_runs.bench
    of_bench = kept[column(kept, f"tags.{tags.BENCH}").eq(bench)]
    rows = [row for row in table.rows if row.bench == bench]
    found = claims(kept, table, bench, bench_runs.primary)
    said = list(sentences(table, bench, found))
    steps = steps_block(found)
    absent = sorted({"CE", "KD"} - {row.rung for row in rows})
    said += [
        f"The control {control} has not finished in experiment {experiment} (below: what to type)."
        for control in absent
    ]
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return ReportSection(
        f"Bench {bench}",
        tuple(said),
        (*([steps] if steps.rows else ()), accuracy_block(rows), cost_block(rows)),
        (
            *fusion_notes(rows),
            *validation_notes(of_bench),
            *shown_with(counted, bench),
            *(f"{text}." for text in not_shared(kept, bench)),
        ),
        tuple(bench_runs.multirun(seeds, cfg=control) for control in absent),
    )


def _nothing_finished(experiment: str, asked: RunFilter) -> ReportSection:
    if asked.narrow:
        none = (
            f"No finished distillation run of experiment {experiment} is left by {asked.words()}."
        )
        return ReportSection("Nothing left", (none,), ())
    where = f"experiment {experiment}" + (f" on bench {asked.bench}" if asked.bench else "")
    said = f"No distillation run has finished in {where}. To begin:"
    there = [f"bench={asked.bench}"] if asked.bench else []
    if experiment != tags.DEFAULT_EXPERIMENT:
        there.append(f"runtime.experiment={experiment}")
    command = " ".join(["python -m pipeline distill cfg=L3", *there])
    return ReportSection("Nothing finished", (said,), (), commands=(command,))


def _teachers_section(rows: tuple[TeacherRow, ...], said: tuple[str, ...]) -> ReportSection:
    if not rows:
        return ReportSection("Teachers", ("No fine-tuning run has finished.",), ())
    notes = []
    if any(not row.selected for row in rows):
        notes.append("With *: of the last epoch; that of the selected one was not logged.")
    if any(row.overlap is not None for row in rows):
        notes.append("Validation of a teacher with an overlap is on its own classes, test on all.")
    return ReportSection("Teachers", said, (teachers_block(rows),), tuple(notes))


def _text(experiment: str, sections: list[ReportSection]) -> str:
    parts = [f"Experiment {experiment}"]
    for section in sections:
        parts.append(f"{section.title}\n{'-' * len(section.title)}")
        parts += [wrapped(section.sentences)] * bool(section.sentences)
        parts += [as_command(command) for command in section.commands]
        parts += [as_text(block) for block in section.blocks]
        parts += [wrapped(section.notes)] * bool(section.notes)
    return "\n\n".join(parts) + "\n"


def _markdown(experiment: str, sections: list[ReportSection]) -> str:
    parts = [f"# Experiment {experiment}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += ["\n".join(f"- {line}" for line in section.sentences)] * bool(section.sentences)
        parts += [as_command(command) for command in section.commands]
        parts += [as_markdown(block) for block in section.blocks]
        parts += ["\n".join(f"- {line}" for line in section.notes)] * bool(section.notes)
    return "\n\n".join(parts) + "\n"


def _figures(
    kept: pd.DataFrame, history: pd.DataFrame, table: LadderTable, primary: str
) -> dict[str, Figure]:
    drawn = {}
    for bench in _benches(table):
        curves = learning_curves.learning_curves(kept, history, bench)
        name = bench.replace(" ", "_")
        apart = differences(table, bench, claims(kept, table, bench, primary))
        if apart.rows:
            drawn[f"differences_{name}"] = draw_differences(apart)
        drawn[f"learning_curves_{name}"] = learning_curves.draw_learning_curves(curves)
        cost = accuracy_cost.accuracy_cost(table, bench)
        drawn[f"accuracy_cost_{name}"] = accuracy_cost.draw_accuracy_cost(cost)
    return drawn
