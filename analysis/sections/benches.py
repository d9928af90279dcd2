"""Several benches in one table: the mean difference of each rung to the control, and how probable
an improvement is over all of them."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.cells import percent, points
from analysis.claims import PLACEBO, Claim, family
from analysis.ladder_numbers import CONTROLS, label_of, rung_order
from analysis.report_model import Section, Table, TextTable
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.by_seed import logged_by_seed
from analysis.selection.configurations import ALONE
from analysis.stats import NO_INTERVAL, Interval

ALL = "all benches"
_RESAMPLES = 2000
_MARKS = {True: "*", False: ""}


class Cell(NamedTuple):
    """A rung on one bench: its difference to the control, and its claim; accuracies of both."""

    bench: str
    mean: float
    claim: Claim | None
    values: tuple[float, ...]
    control: tuple[float, ...]


class BenchesRow(NamedTuple):
    """A rung: a cell a bench that has it, and the probability that it is above the control."""

    rung: str
    cells: tuple[Cell, ...]
    probability: Interval


def rows(all_runs: Sequence[BenchRuns]) -> tuple[BenchesRow, ...]:
    """The rungs and methods that were compared with a control on two benches at least."""
    cells = sorted(
        (pair for bench_runs in all_runs for pair in _cells(bench_runs)), key=lambda pair: pair[0]
    )
    by_rung = {
        rung: tuple(cell for _, cell in of)
        for rung, of in itertools.groupby(cells, key=lambda pair: pair[0])
    }
    return tuple(
        BenchesRow(rung, by_rung[rung], improvement(by_rung[rung]))
        for rung in rung_order(by_rung)
        if len(by_rung[rung]) > 1
    )


def _cells(bench_runs: BenchRuns) -> list[tuple[str, Cell]]:
    found, bench = family(bench_runs), bench_runs.bench
    kept = bench_runs.kept
    return [
        (
            one.rung,
            Cell(
                bench,
                one.difference.interval.mean,
                found.of(one.rung),
                tuple(logged_by_seed(kept, bench, one.rung).values()),
                tuple(logged_by_seed(kept, bench, found.control).values()),
            ),
        )
        for one in found.to_control
        if one.difference.interval.n
        and one.rung not in (*CONTROLS, *ALONE)
        and not one.rung.endswith(PLACEBO)
    ]


def improvement(cells: Sequence[Cell], seed: int = 0) -> Interval:
    """Probability that a student of the rung is above one of the control, the mean over benches,
    with a 95 % interval of the stratified bootstrap over seeds (Agarwal et al. 2021, arXiv
    2108.13264); none where a bench has one seed."""
    if not cells:
        return NO_INTERVAL
    mean = float(np.mean([_above(np.array(c.values), np.array(c.control)) for c in cells]))
    if any(min(len(c.values), len(c.control)) < 2 for c in cells):
        return Interval(len(cells), mean, math.nan, math.nan)
    draw = np.random.default_rng(seed)

    def drawn(cell: Cell) -> float:
        a, b = (draw.choice(of, len(of)) for of in (cell.values, cell.control))
        return _above(a, b)

    means = [np.mean([drawn(cell) for cell in cells]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(len(cells), mean, float(low), float(high))


def _above(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pairs in which a is above b; half of those that are equal."""
    apart = a[:, None] - b[None, :]
    return float(np.mean((apart > 0) + 0.5 * (apart == 0)))


def section(all_runs: Sequence[BenchRuns]) -> Section:
    """The table of all benches; empty where no rung is on two of them."""
    found = rows(all_runs)
    if not found:
        return Section("benches", ALL, "Several benches")
    count = len({cell.bench for row in found for cell in row.cells})
    text = (
        f"This report makes {len(all_runs)} primary claims, one a bench, and shares the 5 % among "
        f"them: {percent(0.05 / len(all_runs))} % each."
    )
    return Section(
        "benches",
        ALL,
        "Several benches",
        sentences=(text,),
        tables=(
            Table(f"Points over the control, by rung and bench ({count} benches)", block(found)),
        ),
        notes=(
            "The control of a bench is the one that is best on validation there; *: its claim "
            "against each control is significant. Probability: that a student of the rung is above "
            "one of the control, the mean over benches, with the 95 % interval of a stratified "
            "bootstrap over seeds; conditional on these benches.",
        ),
        summary=(text, *_summary(found)),
    )


def _summary(found: tuple[BenchesRow, ...]) -> tuple[str, ...]:
    known = [row for row in found if not math.isnan(row.probability.low)]
    listed = "; ".join(f"{label_of(row.rung)} {_probability(row.probability)}" for row in known)
    return (f"Probability of an improvement over the control, %: {listed}.",) if known else ()


def _probability(one: Interval) -> str:
    bounds = f" [{percent(one.low)}, {percent(one.high)}]" if not math.isnan(one.low) else ""
    return f"{percent(one.mean)}{bounds}"


def block(found: tuple[BenchesRow, ...]) -> TextTable:
    """A row a rung, a column a bench."""
    names = list(dict.fromkeys(cell.bench for row in found for cell in row.cells))
    lines = []
    for row in found:
        of = {cell.bench: cell for cell in row.cells}
        cells = (_cell(of[name]) if name in of else "–" for name in names)
        mean = float(np.mean([cell.mean for cell in row.cells]))
        lines.append((label_of(row.rung), *cells, points(mean), _probability(row.probability)))
    return TextTable(("rung", *names, "mean", "probability, %"), tuple(lines))


def _cell(cell: Cell) -> str:
    return points(cell.mean) + _MARKS[cell.claim is not None and cell.claim.significant]
