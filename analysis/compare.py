"""Comparison of two runs or more on one screen: configuration, results, cost.

First as numbers, then as text. Accuracies are fractions, times seconds, memory MiB; missing is NaN.
The others are compared with the first run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.cells import (
    accuracy_cell,
    number,
    paired_cell,
    percent,
    points,
)
from analysis.difference import StudentTest, difference
from analysis.ladder_numbers import ratio, with_epoch_costs
from analysis.render.text import WIDTH, as_text, wrapped
from analysis.report_model import TextTable
from analysis.runs import column
from analysis.selection.by_seed import images_of, tested_of
from analysis.selection.configurations import configuration, seeds_of
from analysis.selection.run_lookup import RunSelection
from analysis.stats import NO_INTERVAL, Interval, share_interval
from analysis.words import counted
from trainers import metrics

_PARAMETERS_SHOWN = 24
_METHOD = "params.method."
_KINDS = {"distill": "a distillation", "finetune": "a teacher's fine-tuning"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ComparedRun(NamedTuple):
    """A run with its own numbers, the mean `test` over the seeds of its configuration, and the
    `difference` of that from the first run's, paired by seed (n = 0 for the first)."""

    label: str  # A, B …
    run_id: str
    stage: str  # distill | finetune
    name: str
    status: str
    key: str
    seed: int | None
    own_test: float
    validation: float
    test: Interval
    difference: Interval
    seconds: float
    images_per_second: float
    memory_mb: float
    parameters: float


class Comparison(NamedTuple):
    """The runs, the parameters that differ (a value for each run), sentences on runs that are the
    same, and the experiment of the tracking store that has the runs ("": unknown)."""

    runs: tuple[ComparedRun, ...]
    parameters: tuple[tuple[str, tuple[str, ...]], ...]
    same: tuple[str, ...]
    experiment: str


def comparison(
    selections: Sequence[RunSelection], history: pd.DataFrame | None = None
) -> Comparison:
    """Comparison of two runs or more. With a `history` of the `EPOCH_METRICS` of the runs, their
    speed and memory are those of the ladder's table, without it the last values logged."""
    if history is not None:
        selections = _with_costs(selections, history)
    compared = tuple(
        _compared(letter, selection, selections[0])
        for letter, selection in zip(_LETTERS, selections, strict=False)
    )
    experiment = str(selections[0].run.get("experiment", ""))
    return Comparison(
        compared, differing_parameters(selections), _same(compared, selections), experiment
    )


def _with_costs(selections: Sequence[RunSelection], history: pd.DataFrame) -> list[RunSelection]:
    runs = with_epoch_costs(pd.DataFrame([selection.run for selection in selections]), history)
    costs = (runs.iloc[number] for number in range(len(runs)))
    return [selection._replace(run=run) for selection, run in zip(selections, costs, strict=True)]


def differing_parameters(
    selections: Sequence[RunSelection],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The parameters that can change a result and differ between runs, by name. Of runs of
    different methods, the options of a method are those that all of them have."""
    if len({selection.tag(tags.STAGE) for selection in selections}) > 1:
        return ()  # a teacher logs the student's options, and uses none of them
    runs = pd.DataFrame([selection.run for selection in selections])
    found = configuration(runs)
    if column(found, f"{_METHOD}name").nunique() > 1:
        lacking = [n for n in found if str(n).startswith(_METHOD) and runs[n].isna().any()]
        found = found.drop(columns=lacking)
    return tuple(
        (str(name).removeprefix("params."), tuple(found[name]))
        for name in sorted(found.columns)
        if found[name].nunique() > 1
    )


def _compared(label: str, selection: RunSelection, first: RunSelection) -> ComparedRun:
    def metric(name: str) -> float:
        return float(selection.run.get(f"metrics.{name}", math.nan))

    own, of_first = (_by_seed(one) for one in (selection, first))
    stage, comparable = (
        selection.tag(tags.STAGE),
        selection.tag(tags.STAGE) == first.tag(tags.STAGE),
    )
    other = selection is not first and comparable
    images = images_of(pd.concat([first.group, selection.group]))
    apart = difference(own, of_first, images).interval if other else NO_INTERVAL
    return ComparedRun(
        label=label,
        run_id=str(selection.run["run_id"]),
        stage=stage,
        name=str(selection.run["name"]),
        status=str(selection.run["status"]),
        key=selection.tag(tags.RUN_KEY),
        seed=selection.seed,
        own_test=metric(metrics.TEST_TOP1),
        validation=metric(metrics.BEST_VAL_TOP1),
        test=share_interval([one.accuracy for one in own.values()]),
        difference=apart,
        seconds=metric(metrics.RUN_SECONDS),
        images_per_second=metric(metrics.IMAGES_PER_SECOND),
        memory_mb=metric(metrics.PEAK_MEMORY),
        parameters=metric(metrics.PARAMETERS),
    )


def _by_seed(selection: RunSelection) -> dict[int, StudentTest]:
    """Test accuracy of the configuration by seed, of runs that have both."""
    pairs = zip(seeds_of(selection.group), tested_of(selection.group), strict=True)
    return {int(seed): one for seed, one in pairs if math.isfinite(seed + one.accuracy)}


def _same(compared: Sequence[ComparedRun], selections: Sequence[RunSelection]) -> tuple[str, ...]:
    found = []
    first, recipe = compared[0], selections[0].tag(tags.RECIPE)
    for one, selection in zip(compared[1:], selections[1:], strict=True):
        pair = f"{first.label} and {one.label}"
        if one.run_id == first.run_id:
            found.append(f"{pair} are one and the same run.")
        elif one.key and one.key == first.key:
            replayed = "; one was replayed from the store" * any(
                s.tag(tags.REUSED) == "true" for s in (selections[0], selection)
            )
            found.append(f"{pair} are the same experiment (key {one.key}){replayed}.")
        elif recipe and selection.tag(tags.RECIPE) == recipe:
            found.append(
                f"{pair} are one configuration at other seeds ({first.seed}, {one.seed}), so "
                "their difference comes from the seed alone."
            )
        elif one.difference.n > 1 and not (
            one.difference.mean or one.difference.low or one.difference.high
        ):
            found.append(
                f"{pair} are equal at each of {one.difference.n} seeds, though their keys "
                "differ: does the option that differs have an effect?"
            )
    return tuple(found)


def as_screen(found: Comparison) -> str:
    """The comparison as text of at most `WIDTH` columns."""
    count, s = counted(len(found.parameters), "parameter"), "s" * (len(found.parameters) == 1)
    parts = [f"Experiment {found.experiment}"] if found.experiment else []
    parts += [as_text(_runs_block(found)), wrapped(found.same) if found.same else ""]
    alike = len({one.stage for one in found.runs}) == 1
    parts.append(f"Configuration: {count} differ{s}" if alike else "")
    parts.append(as_text(_parameters_block(found)) if found.parameters else "")
    hidden = len(found.parameters) - _PARAMETERS_SHOWN
    parts.append(f"… and {hidden} more" if hidden > 0 else "")
    parts += ["Results", as_text(_results_block(found)), "Cost", as_text(_cost_block(found))]
    parts.append(wrapped(_notes(found)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs_block(found: Comparison) -> TextTable:
    rows = tuple(
        (f"{one.label}  {one.name}", one.run_id[:8], one.key or "–", one.status.lower())
        for one in found.runs
    )
    return TextTable(("run", "id", "key", "status"), rows)


def _parameters_block(found: Comparison) -> TextTable:
    """One column for each run; values are cut to fit."""
    shown = found.parameters[:_PARAMETERS_SHOWN]
    widest = min(max(len(name) for name, _ in shown), 36)
    width = max(4, (WIDTH - widest) // len(found.runs) - 2)
    rows = tuple(
        (name, *(text if len(text) <= width else text[: width - 1] + "…" for text in values))
        for name, values in shown
    )
    return TextTable(("parameter", *(one.label for one in found.runs)), rows)


def _results_block(found: Comparison) -> TextTable:
    """Differences over seeds first, since conclusions need them, then the single run."""
    first = found.runs[0]
    header = (
        "",
        "test − A, paired by seed",
        "test over seeds, %",
        "seed",
        "its val, %",
        "its test, %",
        "− A",
    )
    return TextTable(
        header,
        tuple(
            (
                one.label,
                paired_cell(one.difference),
                f"{accuracy_cell(one.test)} n={one.test.n}" if one.test.n > 1 else "–",
                "–" if one.seed is None else str(one.seed),
                percent(one.validation),
                percent(one.own_test),
                "–"
                if one is first or one.stage != first.stage
                else points(one.own_test - first.own_test),
            )
            for one in found.runs
        ),
    )


def _cost_block(found: Comparison) -> TextTable:
    first = found.runs[0]
    header = ("", "time, s", "× A", "images/s", "memory, MiB", "parameters")
    return TextTable(
        header,
        tuple(
            (
                one.label,
                number(one.seconds),
                number(ratio(one.seconds, first.seconds), 2),
                number(one.images_per_second),
                number(one.memory_mb),
                number(one.parameters, 0),
            )
            for one in found.runs
        ),
    )


def _notes(found: Comparison) -> list[str]:
    notes = [
        "Differences are points. Brackets: 95 % intervals over seeds, of differences over test "
        "images too. Cost is of the single run."
    ]
    first, *others = found.runs
    alike = [one for one in others if one.stage == first.stage]
    if alike and (most := max(one.difference.n for one in alike)) < 2:
        common = "One seed" if most else "No seed"
        notes.append(
            f"{common} in common: no interval, no conclusion. Runs of another experiment: "
            "experiment=NAME."
        )
    for one in others:
        if one.stage != first.stage:
            notes.append(
                f"{first.label} is {_KINDS[first.stage]}, {one.label} {_KINDS[one.stage]}: their "
                "results cannot be compared."
            )
        elif None not in (one.seed, first.seed) and one.seed != first.seed:
            notes.append(
                f"{one.label} has seed {one.seed}, {first.label} seed {first.seed}: the difference "
                "of the single runs includes the effect of the seed, the paired one does not."
            )
    unfinished = [one.label for one in found.runs if one.status != "FINISHED"]
    if unfinished:
        notes.append(f"Not finished: {', '.join(unfinished)}; the values logged so far are shown.")
    return notes
