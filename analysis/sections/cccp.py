"""Stability of the alternation: J at step boundaries, and how student accuracy settles.

J and its change are in the unit of the losses (nats), accuracies fractions, epochs student epochs.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.cells import number, points
from analysis.claim_words import sentence
from analysis.claims import family
from analysis.figures import style
from analysis.figures.learning_curves import Points, learning_curves, mean_points
from analysis.ladder_numbers import of_asib, rung_order
from analysis.report_model import MissingRun, ReportFigure, Section, Table, TextTable, seeds_caption
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS, seeds_of
from analysis.stats import Interval, mean_interval, paired_difference
from trainers import metrics

METRICS = (metrics.OBJECTIVE, metrics.STAGE_STEP, metrics.VAL_TOP1)
_LATE, _REACHED = 0.2, 0.95  # of the student epochs, of the highest accuracy
_ASIDE = 0.08  # steps between the bars of two rungs, so that none covers another


class Settling(NamedTuple):
    """One rung: `stages` of alternation; by seed the spread (standard deviation) of validation
    accuracy over the last fifth of the student epochs, and the first epoch that reached 95 % of
    the highest; J after each step, by seed; `rises`: of all changes of J the share that rose."""

    rung: str
    stages: int
    spread: dict[int, float]
    reached: dict[int, float]
    objective: tuple[Points, ...]
    rises: float


class StabilityInfo(NamedTuple):
    """ASIB's rungs and controls on a bench in their order (methods of the literature do not
    alternate); `pair`: the two that differ in CCCP alone."""

    bench: str
    rows: tuple[Settling, ...]
    pair: tuple[str, str] | None


def stability_info(kept: pd.DataFrame, history: pd.DataFrame, bench: str) -> StabilityInfo:
    """How each rung settles; `history` holds `METRICS` of the kept runs."""
    kept = of_asib(kept)
    curves = learning_curves(kept, history, bench).curves
    seeds = dict(zip(kept["run_id"], seeds_of(kept).astype(int), strict=True))
    rows = []
    for rung in rung_order(column(kept, RUNG_COLUMNS[1]).dropna().unique()):
        of = kept[column(kept, RUNG_COLUMNS[1]).eq(rung)]
        student = {c.seed: c.student for c in curves if c.rung == rung and c.student}
        values = history[history["metric"].eq(metrics.OBJECTIVE)]
        values = values[values["run_id"].isin(of["run_id"])]
        by_seed = sorted(values.groupby("run_id"), key=lambda item: seeds[item[0]])
        paths = (_path(group.sort_values("step")["value"].tolist()) for _, group in by_seed)
        objective = tuple(path for path in paths if path)
        stages = column(of, "params.method.num_stages").astype(float).max()
        rows.append(
            Settling(
                rung,
                int(stages) if np.isfinite(stages) else 1,
                {seed: late_spread(points) for seed, points in student.items()},
                {seed: epochs_to(points) for seed, points in student.items()},
                objective,
                _rises(objective),
            )
        )
    there = {row.rung for row in rows}
    pair = ("L2", "L1") if {"L1", "L2"} <= there else None
    return StabilityInfo(bench, tuple(rows), pair)


def _path(values: list[float]) -> Points:
    """Each value with the number of its step, without those that are not finite."""
    return tuple((float(x), y) for x, y in enumerate(values, start=1) if np.isfinite(y))


def late_spread(points: Points) -> float:
    """Standard deviation over the last fifth of the epochs (two at least; NaN where one alone has
    a value)."""
    last = max(x for x, _ in points)
    late = [y for x, y in points if x > last - max(2, round(_LATE * last))]
    return float(np.std(late, ddof=1)) if len(late) > 1 else float("nan")


def epochs_to(points: Points) -> float:
    """The first epoch, counted from 1, that reaches 95 % of the highest value."""
    return next(x for x, y in points if y >= _REACHED * max(y for _, y in points))


def _rises(paths) -> float:
    changes = [b - a for path in paths for (_, a), (_, b) in itertools.pairwise(path)]
    return float(np.mean(np.array(changes) > 0)) if changes else float("nan")


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench."""
    kept = of_asib(bench_runs.kept)
    info = stability_info(kept, bench_runs.history(kept, METRICS), bench_runs.bench)
    gaps = tuple(
        MissingRun(f"{rung} ({what} CCCP) has not finished", bench_runs.multirun(cfg=rung))
        for rung, what in (("L1", "without"), ("L2", "with"))
        if rung not in {row.rung for row in info.rows}
    )
    if not info.rows:
        return Section("cccp", bench_runs.bench, "CCCP stability", gaps=gaps)
    claim = None if info.pair is None else family(bench_runs).of(*info.pair)
    claimed = () if claim is None else (sentence(claim),)
    said = (*claimed, *_sentences(info))
    drawings: tuple[ReportFigure, ...] = ()
    if any(row.objective for row in info.rows):
        drawings = (ReportFigure(f"cccp_{info.bench}", draw(info), _caption(info)),)
    return Section(
        "cccp",
        bench_runs.bench,
        "CCCP stability",
        sentences=said,
        summary=(" ".join(said[: len(claimed) + 1]),) if said else (),
        tables=(Table("How each rung settles (means over seeds)", block(info)),),
        figures=drawings,
        gaps=gaps,
        notes=(
            "Descent of J is observed, not guaranteed. Spread and epochs are described with 95 % "
            "t-intervals, of which no claim is made.",
        ),
        run_ids=tuple(kept["run_id"]),
    )


def _finite(by_seed: dict[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in by_seed.items() if np.isfinite(value)}


def _mean(by_seed: dict[int, float]) -> Interval:
    return mean_interval(list(_finite(by_seed).values()))


def _sentences(info: StabilityInfo) -> tuple[str, ...]:
    texts = []
    if info.pair:
        rows = {row.rung: row for row in info.rows}
        a, b = (rows[rung] for rung in info.pair)
        spread = paired_difference(_finite(a.spread), _finite(b.spread))
        epochs = paired_difference(a.reached, b.reached)
        texts += [
            f"{a.rung} (with CCCP) − {b.rung} (without): spread of the last fifth of the epochs "
            f"{points(spread.mean)} points{_bounds(spread, 100)}; epochs to 95 % of the highest "
            f"accuracy {number(epochs.mean)}{_bounds(epochs, 1)}; n = {epochs.n}; not a claim."
        ]
    texts += [
        f"{row.rung}: J rose at {100 * row.rises:.0f} % of the step boundaries."
        for row in info.rows
        if row.stages > 1 and np.isfinite(row.rises)
    ]
    return tuple(texts)


def _bounds(found: Interval, scale: float) -> str:
    bounds = f" [{scale * found.low:.2f}, {scale * found.high:.2f}]" if found.n > 1 else ""
    return bounds.replace("-", "−")


def block(info: StabilityInfo) -> TextTable:
    """One row a rung."""
    header = ("rung", "n", "stages", "spread, points", "epochs to 95 %", "J rose, %")
    return TextTable(
        header,
        tuple(
            (
                row.rung,
                str(len(row.spread)),
                str(row.stages),
                number(100 * _mean(row.spread).mean, 2),
                number(_mean(row.reached).mean),
                number(100 * row.rises),
            )
            for row in info.rows
        ),
    )


def _caption(info: StabilityInfo) -> str:
    counts = seeds_caption((r.rung, len(r.objective)) for r in info.rows if r.objective)
    bars = style.bars_caption(i for row in info.rows for i in objective_intervals(row.objective)[1])
    return (
        f"J on the validation images of {info.bench} after each step (odd: A-Steps, even: "
        f"B-Steps): means with {bars}; thin lines are seeds; {counts}."
    )


def objective_intervals(paths: Sequence[Points]) -> tuple[tuple[float, ...], list[Interval]]:
    """The steps that all seeds have, and of each the mean of J with its interval."""
    steps = [x for x, _ in mean_points(paths)]
    values = [dict(path) for path in paths]
    return tuple(steps), [mean_interval([one[x] for one in values]) for x in steps]


def draw(info: StabilityInfo) -> Figure:
    """J after each step, a colour a rung."""
    figure, axes = style.new_figure(f"{info.bench}: objective of the alternation", "step", "J")
    rows = [row for row in info.rows if row.objective]
    looks = style.looks([row.rung for row in rows])
    drawn, passed = [], []
    for k, row in enumerate(rows):
        look = looks[row.rung]
        shift = _ASIDE * (k - (len(rows) - 1) / 2)
        for path in row.objective if len(row.objective) > 1 else ():
            xs, ys = zip(*path, strict=True)
            axes.plot([x + shift for x in xs], ys, color=look.colour, linewidth=0.5, alpha=0.35)
        steps, intervals = objective_intervals(row.objective)
        aside = [step + shift for step in steps]
        label = f"{row.rung} (n = {len(row.objective)})"
        style.draw_intervals(axes, aside, intervals, look, label)
        drawn += intervals
        passed += [y for path in row.objective for _, y in path]
    axes.set_ylim(style.view(drawn, *passed))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
