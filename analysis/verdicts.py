"""Whether a rung helps: one comparison with the best control each, as numbers, then as a sentence.

Accuracies are fractions; sentences give points (hundredths of the test set).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from analysis.configuration import same_setting
from analysis.stats import NO_INTERVAL, Interval, paired_difference
from analysis.tables import CONTROLS, LadderRow, LadderTable, accuracy_by_seed, ratio


class Verdict(NamedTuple):
    """A rung's test accuracy less a control's, paired by seed, and its time over the control's."""

    bench: str
    rung: str
    control: str
    difference: Interval
    times: float


def best_control(table: LadderTable, bench: str) -> LadderRow | None:
    """The row of `best_of_controls`, None without one."""
    of_bench = {row.rung: row for row in table.rows if row.bench == bench}
    return of_bench.get(best_of_controls({rung: row.test.mean for rung, row in of_bench.items()}))


def best_of_controls(mean_of: Mapping[str, float]) -> str:
    """The control with the highest mean test accuracy (the earlier of equals), "" without one.

    Choosing it by test accuracy favours the control, never the rung compared with it.
    """
    there = [control for control in CONTROLS if control in mean_of]
    return max(there, key=lambda control: mean_of[control], default="")


def verdicts(kept: pd.DataFrame, table: LadderTable) -> tuple[Verdict, ...]:
    """Each rung against the best control of its bench; the other controls against CE."""
    with_ce = {row.bench: row for row in table.rows if row.rung == CONTROLS[0]}
    found = []
    for row in table.rows:
        of_ladder = row.rung not in CONTROLS
        control = best_control(table, row.bench) if of_ladder else with_ce.get(row.bench)
        if control is not None and control.rung != row.rung:
            found.append(_verdict(kept, row, control, table.level))
    return tuple(found)


def _verdict(kept: pd.DataFrame, row: LadderRow, control: LadderRow, level: float) -> Verdict:
    difference = NO_INTERVAL
    if same_setting(kept, row.bench, row.rung, control.rung):
        difference = paired_difference(
            accuracy_by_seed(kept, row.bench, row.rung),
            accuracy_by_seed(kept, row.bench, control.rung),
            level,
        )
    return Verdict(
        row.bench, row.rung, control.rung, difference, ratio(row.seconds, control.seconds)
    )


def sentence(verdict: Verdict, level: float) -> str:
    """The comparison in words; "better" and "worse" only where the interval leaves out 0."""
    difference, control = verdict.difference, verdict.control
    start = f"{verdict.rung} − {control}:"
    if difference.n == 0:
        return f"{start} no seed in common, or other data or budget: nothing to compare."
    time = "" if math.isnan(verdict.times) else f", {verdict.times:.2f} × the time"
    mean = f"{start} {points(difference.mean)} points"
    if difference.n == 1:
        return f"{mean}{time}; one seed: no interval, no conclusion."
    bounds = f"{points(difference.low)} to {points(difference.high)}"
    conclusion = f"no gain over {control} shown"
    if difference.low > 0:
        conclusion = f"better than {control}"
    elif difference.high < 0:
        conclusion = f"worse than {control}"
    return f"{mean}, {in_percent(level)} interval {bounds}, n = {difference.n}{time}: {conclusion}."


def in_percent(level: float) -> str:
    """The level of an interval: `95 %`."""
    return f"{100 * level:g} %"


def points(fraction: float) -> str:
    """A difference of fractions as signed points with two decimals; `–` where it is missing."""
    if math.isnan(fraction):
        return "–"
    rounded = round(100 * fraction, 2) + 0.0  # no "−0.00"
    return f"{rounded:+.2f}".replace("-", "−")
