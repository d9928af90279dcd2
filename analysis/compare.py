"""Several runs beside each other on one screen: configuration, results, cost.

First what is compared as numbers, then the text. Accuracies are fractions, times seconds, memory
MiB; missing is NaN. The first run is the one that the others are compared with.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.ladder_table import ratio, with_epoch_costs
from analysis.render.text import (
    WIDTH,
    TextTable,
    accuracy_cell,
    as_text,
    number,
    paired_cell,
    percent,
    points,
    wrapped,
)
from analysis.report_model import counted
from analysis.selection.configurations import configuration, seeds_of
from analysis.selection.run_lookup import RunSelection
from analysis.stats import NO_INTERVAL, Interval, paired_difference, share_interval
from trainers import metrics

_PARAMETERS_SHOWN = 24
_KINDS = {"distill": "a distillation", "finetune": "a teacher's fine-tuning"}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Compared(NamedTuple):
    """A run: its own numbers; `test` over the seeds of its configuration; `difference` of that
    from the first run's, paired by seed (n = 0 for the first)."""

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
    """The runs, the parameters that differ (a value a run; `not set` where a run has none), the
    sentences on which of them are the same, and the experiment of the tracking store that they
    were looked for in ("": it is not known)."""

    runs: tuple[Compared, ...]
    parameters: tuple[tuple[str, tuple[str, ...]], ...]
    same: tuple[str, ...]
    experiment: str


def comparison(sides: Sequence[RunSelection], history: pd.DataFrame | None = None) -> Comparison:
    """What differs between two runs or more. Where `history` holds the `EPOCH_METRICS` of the runs
    their speed and memory are those of the ladder's table, else the last values logged."""
    if history is not None:
        sides = _with_costs(sides, history)
    compared = tuple(
        _compared(letter, side, sides[0]) for letter, side in zip(_LETTERS, sides, strict=False)
    )
    experiment = str(sides[0].run.get("experiment", ""))
    return Comparison(compared, differing_parameters(sides), _same(compared, sides), experiment)


def _with_costs(sides: Sequence[RunSelection], history: pd.DataFrame) -> list[RunSelection]:
    runs = with_epoch_costs(pd.DataFrame([side.run for side in sides]), history)
    costs = (runs.iloc[number] for number in range(len(runs)))
    return [side._replace(run=run) for side, run in zip(sides, costs, strict=True)]


def differing_parameters(sides: Sequence[RunSelection]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """By name, those parameters that can change a result and are not the same in all runs."""
    if len({side.tag(tags.STAGE) for side in sides}) > 1:
        return ()  # a teacher logs what it was made for, and uses none of the student's options
    found = configuration(pd.DataFrame([side.run for side in sides]))
    return tuple(
        (str(name).removeprefix("params."), tuple(found[name]))
        for name in sorted(found.columns)
        if found[name].nunique() > 1
    )


def _compared(label: str, side: RunSelection, first: RunSelection) -> Compared:
    def metric(name: str) -> float:
        return float(side.run.get(f"metrics.{name}", math.nan))

    own, of_first = (_by_seed(one) for one in (side, first))
    stage, comparable = side.tag(tags.STAGE), side.tag(tags.STAGE) == first.tag(tags.STAGE)
    other = side is not first and comparable
    apart = paired_difference(own, of_first) if other else NO_INTERVAL
    return Compared(
        label,
        str(side.run["run_id"]),
        stage,
        str(side.run["name"]),
        str(side.run["status"]),
        side.tag(tags.RUN_KEY),
        side.seed,
        metric(metrics.TEST_TOP1),
        metric(metrics.BEST_VAL_TOP1),
        share_interval(list(own.values())),
        apart,
        metric(metrics.RUN_SECONDS),
        metric(metrics.IMAGES_PER_SECOND),
        metric(metrics.PEAK_MEMORY),
        metric(metrics.PARAMETERS),
    )


def _by_seed(side: RunSelection) -> dict[int, float]:
    """Test accuracy of the configuration by seed, of runs that have both."""
    group = side.group
    if f"metrics.{metrics.TEST_TOP1}" not in group:
        return {}
    values = group[f"metrics.{metrics.TEST_TOP1}"].astype(float)
    pairs = zip(seeds_of(group), values, strict=True)
    return {int(seed): value for seed, value in pairs if math.isfinite(seed + value)}


def _same(compared: Sequence[Compared], sides: Sequence[RunSelection]) -> tuple[str, ...]:
    found = []
    first, recipe = compared[0], sides[0].tag(tags.RECIPE)
    for one, side in zip(compared[1:], sides[1:], strict=True):
        pair = f"{first.label} and {one.label}"
        if one.run_id == first.run_id:
            found.append(f"{pair} are one and the same run.")
        elif one.key and one.key == first.key:
            replayed = "; one was replayed from the store" * any(
                s.tag(tags.REUSED) == "true" for s in (sides[0], side)
            )
            found.append(f"{pair} are the same experiment (key {one.key}){replayed}.")
        elif recipe and side.tag(tags.RECIPE) == recipe:
            found.append(
                f"{pair} are one configuration at other seeds ({first.seed}, {one.seed}), so "
                "their difference is chance."
            )
        elif one.difference.n > 1 and not (
            one.difference.mean or one.difference.low or one.difference.high
        ):
            found.append(
                f"{pair} are equal at each of {one.difference.n} seeds, though their keys are "
                "not: does what differs do anything?"
            )
    return tuple(found)


def as_screen(found: Comparison) -> str:
    """The comparison as text of at most `WIDTH` columns."""
    count = counted(len(found.parameters), "parameter")
    parts = [f"Experiment {found.experiment}"] if found.experiment else []
    parts += [as_text(_runs_block(found)), wrapped(found.same) if found.same else ""]
    alike = len({one.stage for one in found.runs}) == 1
    parts.append(f"Configuration: {count} not the same" if alike else "")
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
    """A column a run; values are cut so that all fit."""
    shown = found.parameters[:_PARAMETERS_SHOWN]
    widest = min(max(len(name) for name, _ in shown), 36)
    room = max(4, (WIDTH - widest) // len(found.runs) - 2)
    rows = tuple(
        (name, *(text if len(text) <= room else text[: room - 1] + "…" for text in values))
        for name, values in shown
    )
    return TextTable(("parameter", *(one.label for one in found.runs)), rows)


def _results_block(found: Comparison) -> TextTable:
    """Over seeds first, which is what may be concluded from, then the single run."""
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
        "Differences are points. Brackets: 95 % t-intervals over seeds. Cost is of the single run."
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
                f"{first.label} is {_KINDS[first.stage]}, {one.label} {_KINDS[one.stage]}: no "
                "difference of theirs is one of methods, and none is given."
            )
        elif None not in (one.seed, first.seed) and one.seed != first.seed:
            notes.append(
                f"{one.label} has seed {one.seed}, {first.label} {first.seed}: − A of the single "
                "runs has the seed's part in it; what is paired by seed has not."
            )
    unfinished = [one.label for one in found.runs if one.status != "FINISHED"]
    if unfinished:
        notes.append(f"Not finished: {', '.join(unfinished)}; what it has logged so far is shown.")
    return notes
