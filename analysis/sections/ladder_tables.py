"""The tables of a ladder and the notes that belong to them."""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from analysis.cells import (
    MISSING,
    Measure,
    accuracy_cell,
    in_percent,
    number,
    paired_cell,
    percent,
    points,
)
from analysis.correctness import CORRECT
from analysis.ladder_numbers import LadderRow, LadderTable, TeacherRow, label_of
from analysis.report_model import TextTable
from analysis.runs import column
from analysis.selection.by_seed import images_of
from trainers import metrics


def _label(row: LadderRow) -> str:
    """`L2`, or `L2 (ib_beta=0.001)` where the rung ran in several configurations."""
    if not row.configuration:
        return label_of(row.rung)
    return f"{label_of(row.rung)} ({row.configuration.replace('method.', '')})"


Columns = dict[str, Callable[[LadderRow], str]]  # heading: cell of a row

OVER_STUDENT = "over student"
EMPTY: Mapping[str, str] = {}

ACCURACY: Columns = {
    "rung": _label,
    "n": lambda row: str(row.test.n),
    "test top-1, %": lambda row: accuracy_cell(row.test),
    "±": lambda row: percent(row.test_error),
    "vs CE, points": lambda row: paired_cell(row.vs_ce),
    "vs KD, points": lambda row: paired_cell(row.vs_kd),
}
COST: Columns = {
    "rung": _label,
    "synergy, %": lambda row: percent(row.synergy),
    "gain": lambda row: points(row.gain) + "*" * (not row.as_loaded),
    OVER_STUDENT: lambda row: points(row.gain_student),
    "share, %": lambda row: percent(row.share),
    "time, s": lambda row: number(row.seconds),
    "× CE": lambda row: number(row.times_ce, 2),
    "images/s": lambda row: number(row.images_per_second),
    "memory, MiB": lambda row: number(row.peak_memory_mb),
}


def accuracy_block(rows: Iterable[LadderRow], marks: Mapping[str, str] = EMPTY) -> TextTable:
    """Test accuracy in percent, differences to CE and KD in points, each with its interval.
    `marks` are those of significant rungs, which print has."""
    rows = tuple(rows)
    found = _table(ACCURACY, rows)
    for row, cells in zip(rows, found.rows, strict=True):
        for cell in cells:
            if isinstance(cell, Measure) and cell.accuracy:
                cell.mark = marks.get(row.rung, "")
    return found


def cost_block(rows: Iterable[LadderRow]) -> TextTable:
    """The fusion's validation accuracy and what a rung costs. Older runs have no gain over the
    student."""
    rows = tuple(rows)
    asked = any(math.isfinite(row.gain_student) for row in rows)
    return _table({k: cell for k, cell in COST.items() if asked or k != OVER_STUDENT}, rows)


def _table(columns: Columns, rows: Iterable[LadderRow]) -> TextTable:
    cells = (tuple(cell(row) for cell in columns.values()) for row in rows)
    return TextTable(tuple(columns), tuple(cells))


def _teacher_label(row: TeacherRow) -> str:
    """`resnet20`, or `resnet20 (4000 images, overlap 50)` where either was limited."""
    images = [f"{row.images} images"] if row.images is not None else []
    overlap = [f"overlap {row.overlap}"] if row.overlap is not None else []
    limits = ", ".join([*images, *overlap])
    return f"{row.model} ({limits})" if limits else row.model


def teachers_block(rows: Iterable[TeacherRow]) -> TextTable:
    """Fine-tuned teachers; a validation accuracy of the last epoch, not the best, has a `*`."""
    cells = tuple(
        (
            _teacher_label(row),
            MISSING if row.seed is None else str(row.seed),
            percent(row.validation) + ("" if row.selected else "*"),
            percent(row.test),
            number(row.seconds),
        )
        for row in rows
    )
    return TextTable(("teacher", "seed", "validation, %", "test, %", "time, s"), cells)


def interval_notes(table: LadderTable, kept: pd.DataFrame) -> list[str]:
    """What the intervals mean and over which seeds they were taken."""
    images, records = images_of(kept), column(kept, f"tags.{CORRECT}").notna().all()
    source = "and test images, by the record of each image"
    if not records:
        source = "and no less than what the test images leave; the runs have no record of each"
    if not records and images is None:
        source = "alone: neither a record of each test image nor their number is known"
    size = "" if images is None else f" Test: {images:,} images."
    notes = [
        f"Brackets: {in_percent(table.level)} intervals, not corrected for several comparisons and "
        "conditional on the teachers. Of accuracies they are over seeds, next to the standard "
        f"error of the test images (±); of differences, paired by seed, over seeds {source}.{size}"
    ]
    if any(row.test.n == 1 for row in table.rows):
        notes.append("n = 1: one seed has no interval and allows no conclusion.")
    for bench in dict.fromkeys(row.bench for row in table.rows):
        seeds = sorted({seed for row in table.rows if row.bench == bench for seed in row.seeds})
        listed = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} … {seeds[-1]}"
        notes.append(f"{bench}: {len(seeds)} seed{'s' * (len(seeds) != 1)} ({listed}).")
    return notes


def validation_notes(runs: pd.DataFrame) -> list[str]:
    """What one validation image is worth, where all runs say how many there were: accuracies that
    are equal, or at 100 %, are of few images."""
    sizes = column(runs, f"metrics.{metrics.VAL_IMAGES}").astype(float).unique()
    if len(sizes) != 1 or not sizes[0] >= 1:
        return []
    return [f"Validation: {sizes[0]:,.0f} images, so that one is {100 / sizes[0]:.2f} points."]


def fusion_notes(rows: Iterable[LadderRow]) -> list[str]:
    """What synergy and gain are, where there are any."""
    fused = [row for row in rows if math.isfinite(row.synergy)]
    then = " (with *: as it was by then)" * any(not row.as_loaded for row in fused)
    asked = any(math.isfinite(row.gain_student) for row in fused)
    student = f"{OVER_STUDENT}: less that of the student that asks; " * asked
    note = (
        "Synergy: validation accuracy of the fusion that the last B-Step used; gain: less that of "
        f"the best teacher as it was loaded{then}; {student}share: of the samples of the last "
        "B-Step epoch, those that the fusion taught (the others the teachers' average)."
    )
    time = (
        "Time: A-Steps, B-Steps and the view banks that a run reads, counted in full where they "
        "were there already."
    )
    return [note, time] if fused else []


_LISTED = 10  # runs left out that are named


def left_out_notes(left_out: pd.DataFrame) -> list[str]:
    """How many runs do not count and why, and up to ten of them by run id."""
    if left_out.empty:
        return ["No run was left out."]
    kinds = left_out["reason"].str.partition(" (")[0].value_counts()
    total = len(left_out)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    notes = [f"Left out: {total} run{'s' * (total != 1)} ({counts})."]
    listed = left_out.head(_LISTED)[["run_id", "name", "reason"]]
    notes += [f"{run_id}  {name}: {reason}" for run_id, name, reason in listed.to_numpy()]
    if total > _LISTED:
        notes.append(f"… and {total - _LISTED} more")
    return notes
