"""Time of whole runs of the rungs next to CE, with the teachers' view banks there or to be made."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.setting import Run, Setting
from benchmarks.shown import at_most, ratios, spread, table
from trainers.data import TrainingData
from trainers.distill import distill

CAPTION = """\
Whole runs, seconds: all epochs of the budget with the tables of each stage and validation, gate \
open; without reading data, commits and tracking. A-Step and B-Step hold the tables that they \
make at their start; bank: the view banks of all teachers. {rounds} rounds, interleaved; seconds \
are medians, ratios median (least … largest) within a round. Targets: with the banks there L2 at \
most 1.15 of CE, L3 and L4 at most 1.50; L2 at most 1.50 with the banks to be made."""
THERE, MADE = {"L2": 1.15, "L3": 1.5, "L4": 1.5}, {"L2": 1.5}  # largest ratios to CE
HEAD = ["", "A-Step", "B-Step", "bank", "banks there / CE", "target", "banks made / CE", "target"]


class Seconds(NamedTuple):
    """What one run took. `bank` is 0 where no teacher is read."""

    a_step: float
    b_step: float
    bank: float

    @property
    def there(self) -> float:
        """With the banks there."""
        return self.a_step + self.b_step

    @property
    def made(self) -> float:
        """With the banks to be made."""
        return self.there + self.bank


def compare(setting: Setting, data: TrainingData, rungs: list[str], rounds: int) -> str:
    """The table of whole runs."""
    claimed: dict[str, list[Seconds]] = {rung: [] for rung in rungs}
    for turn in range(rounds):
        teachers, bank = setting.teachers(data)
        first = turn % len(rungs)
        for rung in rungs[first:] + rungs[:first]:
            run = setting.run(rung, data, teachers)
            claimed[rung].append(Seconds(*train(setting, run), bank if run.teachers else 0.0))
    rows = [_row(rung, claimed[rung], claimed["CE"]) for rung in rungs]
    return table(CAPTION.format(rounds=rounds), HEAD, rows)


def train(setting: Setting, run: Run) -> tuple[float, float]:
    """Seconds of the A-Steps and of the B-Steps of a run from its first epoch to its last."""
    seconds, last = {"A": 0.0, "B": 0.0}, setting.clock()
    for epoch in distill(*run):
        now = setting.clock()
        seconds[epoch.step] += now - last
        last = now
    return seconds["A"], seconds["B"]


def _row(rung: str, own: Sequence[Seconds], ce: Sequence[Seconds]) -> list[str]:
    there = ratios([s.there for s in own], [s.there for s in ce])
    made = ratios([s.made for s in own], [s.made for s in ce])
    parts = [f"{median(part):.2f}" for part in zip(*own, strict=True)]
    targets = [
        at_most(most[rung], found) if rung in most else ""
        for most, found in ((THERE, there), (MADE, made))
    ]
    return [rung, *parts, spread(there), targets[0], spread(made), targets[1]]
