"""Room: how far the teachers, alone, averaged, stacked and fused, are from what labels alone teach.

All accuracies are of validation images (fractions): what a target knows there is what it can teach.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.cells import accuracy_cell, percent, points
from analysis.ladder_numbers import label_of, rung_order
from analysis.report_model import MissingRun, Section, Table, TextTable
from analysis.runs import column
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import RUNG_COLUMNS
from analysis.stats import Interval, mean_interval
from trainers import metrics

CONTROL = "CE"
_TEACHERS = {
    "the best teacher": metrics.ROOM_BEST_TEACHER,
    "the teachers' average": metrics.ROOM_AVERAGE,
    "a stack of the teachers": metrics.ROOM_STACK,
}
AVERAGE, STACK = list(_TEACHERS)[1:]
_GAINS = {
    "the best teacher": metrics.SYNERGY_GAIN_ORIGINAL,
    AVERAGE: metrics.SYNERGY_GAIN_AVERAGE_ORIGINAL,
}
_TITLE = "Room: what there is to teach"
_OWN = (
    "The accuracy of a fusion with a query has in it what the student that asks knows itself: "
    "its gain over that student is in what=teacher_adaptation."
)
_LITTLE = 0.01  # of accuracy: room within which two seeds can differ


class Target(NamedTuple):
    """Something that can teach, or labels alone: its validation accuracy, over runs, and the mean
    of that of the students it taught (NaN: of none)."""

    name: str
    known: Interval
    student: float = float("nan")


class RoomInfo(NamedTuple):
    """Students of the labels alone, and targets, those of teachers before those of fusions."""

    bench: str
    alone: Interval
    targets: tuple[Target, ...]

    def of(self, name: str) -> float:
        """The mean accuracy of a target; NaN where it was not measured."""
        return next((t.known.mean for t in self.targets if t.name == name), float("nan"))

    @property
    def best(self) -> Target | None:
        return max(self.targets, key=lambda target: target.known.mean, default=None)


def room_info(kept: pd.DataFrame, bench: str) -> RoomInfo:
    """Of one configuration a rung. What teachers know is the mean over the runs that measured it;
    of older runs it follows from the gains of their fusions."""
    rungs = column(kept, RUNG_COLUMNS[1])
    targets = [Target(name, _interval(_of_teachers(kept, name))) for name in _TEACHERS]
    for rung in rung_order(rungs.dropna().unique()):
        own = kept[rungs.eq(rung)]
        student = _over(own, metrics.BEST_VAL_TOP1).mean
        known = _over(own, metrics.SYNERGY_RESTORED)
        targets.append(Target(f"the fusion of {label_of(rung)}", known, student))
    alone = _over(kept[rungs.eq(CONTROL)], metrics.BEST_VAL_TOP1)
    return RoomInfo(bench, alone, tuple(target for target in targets if target.known.n))


def _of_teachers(kept: pd.DataFrame, name: str) -> pd.Series:
    """The accuracy of the teachers as they were loaded, run by run."""
    values = column(kept, f"metrics.{_TEACHERS[name]}").astype(float)
    if name not in _GAINS:
        return values
    restored, gain = (
        column(kept, f"metrics.{one}").astype(float)
        for one in (metrics.SYNERGY_RESTORED, _GAINS[name])
    )
    return values.fillna(restored - gain)


def _over(runs: pd.DataFrame, metric: str) -> Interval:
    return _interval(column(runs, f"metrics.{metric}").astype(float))


def _interval(values: pd.Series) -> Interval:
    return mean_interval(values[np.isfinite(values)].tolist())


def section(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench in a report of everything: where a run has measured it."""
    if column(bench_runs.kept, f"metrics.{metrics.ROOM_AVERAGE}").notna().any():
        return alone(bench_runs)
    return Section("room", bench_runs.bench, _TITLE, gaps=_gaps(bench_runs, ()))


def alone(bench_runs: BenchRuns) -> Section:
    """The analysis of one bench, of older runs too."""
    kept = bench_runs.kept
    info = room_info(kept, bench_runs.bench)
    known = tuple(target.name for target in info.targets)
    gaps = _gaps(bench_runs, ("labels alone",) * (info.alone.n > 0) + known)
    if not info.targets:
        return Section("room", bench_runs.bench, _TITLE, gaps=gaps)
    sentences = _sentences(info)
    return Section(
        "room",
        bench_runs.bench,
        _TITLE,
        sentences=sentences,
        tables=(Table("Validation accuracy of what can teach, and of the students", block(info)),),
        gaps=gaps,
        notes=(_OWN,) if any(np.isfinite(target.student) for target in info.targets) else (),
        run_ids=tuple(column(kept, "run_id").dropna()),
        summary=sentences[-1:],
    )


def _gaps(bench_runs: BenchRuns, known: tuple[str, ...]) -> tuple[MissingRun, ...]:
    """The runs that measure what is not `known`."""
    missing = {"labels alone": CONTROL, AVERAGE: "KD"}
    return tuple(
        MissingRun(f"{name} was not measured", bench_runs.multirun(cfg=rung))
        for name, rung in missing.items()
        if name not in known
    )


def _sentences(info: RoomInfo) -> tuple[str, ...]:
    found, best = [], info.best
    gap = info.of(STACK) - info.of(AVERAGE)
    if np.isfinite(gap):
        found.append(
            f"A stack of the teachers is {points(gap)} points from their average: about what a "
            "fusion can add to it."
        )
    if best is not None and info.alone.n:
        room = best.known.mean - info.alone.mean
        text = (
            f"What knows most is {best.name} ({percent(best.known.mean)} %), {points(room)} points "
            f"from a student of the labels alone ({percent(info.alone.mean)} %): "
        )
        if room <= _LITTLE:
            text += "there is little to teach. Fewer labels, or other teachers, leave more room."
        else:
            text += "about what a target can add to such a student."
        found.append(text)
    return tuple(found)


def block(info: RoomInfo) -> TextTable:
    """A row a target; differences in points from labels alone."""
    rows = [("labels alone", str(info.alone.n), accuracy_cell(info.alone), "–", "–")]
    rows += [
        (
            target.name,
            str(target.known.n),
            accuracy_cell(target.known),
            points(target.known.mean - info.alone.mean),
            percent(target.student),
        )
        for target in info.targets
    ]
    header = ("target", "n", "validation, %", "over labels alone, points", "its student, %")
    return TextTable(header, tuple(rows if info.alone.n else rows[1:]))
