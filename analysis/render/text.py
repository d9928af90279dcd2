"""Tables and notes as plain text of at most 100 columns, and as Markdown."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from analysis.ladder_table import LadderRow, LadderTable, TeacherRow, label_of
from analysis.runs import column
from analysis.stats import Interval
from trainers import metrics

WIDTH = 100
_TEXT = 40  # a cell that is longer than any number
MISSING = "–"
_LISTED = 10  # runs left out that are named


class TextTable(NamedTuple):
    """A table of text; the first column is a name, the others are numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def accuracy_block(rows: Iterable[LadderRow]) -> TextTable:
    """Test accuracy in percent, differences to CE and KD in points, each with its interval."""
    cells = tuple(
        (
            _label(row),
            str(row.test.n),
            accuracy_cell(row.test),
            paired_cell(row.vs_ce),
            paired_cell(row.vs_kd),
        )
        for row in rows
    )
    return TextTable(("rung", "n", "test top-1, %", "vs CE, points", "vs KD, points"), cells)


def cost_block(rows: Iterable[LadderRow]) -> TextTable:
    """The fusion's validation accuracy and what a rung costs."""
    header = (
        "rung",
        "synergy, %",
        "gain",
        "share, %",
        "time, s",
        "× CE",
        "images/s",
        "memory, MiB",
    )
    cells = tuple(
        (
            _label(row),
            percent(row.synergy),
            points(row.gain) + "*" * (not row.as_loaded),
            percent(row.share),
            number(row.seconds),
            number(row.times_ce, 2),
            number(row.images_per_second),
            number(row.peak_memory_mb),
        )
        for row in rows
    )
    return TextTable(header, cells)


def _label(row: LadderRow) -> str:
    """`L2`, or `L2 (ib_beta=0.001)` where the rung ran in several configurations."""
    if not row.configuration:
        return label_of(row.rung)
    return f"{label_of(row.rung)} ({row.configuration.replace('method.', '')})"


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


def as_text(block: TextTable) -> str:
    """Aligned columns; where a line would be longer than `WIDTH` the widest text beside the names
    is cut, then the names: never a number."""
    table = (block.header, *block.rows)
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    room = WIDTH - 2 * len(widths[1:])
    widest = max(range(len(widths)), key=lambda k: widths[k] if k else 0)
    if widest and sum(widths) > room:  # the names are the first
        least = min(_TEXT, widths[widest])
        widths[widest] = max(least, room - sum(widths) + widths[widest])
    widths[0] = min(widths[0], room - sum(widths[1:]))
    return "\n".join(
        "  ".join(
            [
                _cut(name, widths[0]).ljust(widths[0]),
                *(_cut(c, width).rjust(width) for c, width in zip(cells, widths[1:], strict=True)),
            ]
        )
        for name, *cells in table
    )


def as_markdown(block: TextTable) -> str:
    """A Markdown table, names to the left and numbers to the right."""
    rule = (":--", *["--:"] * (len(block.header) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in (block.header, rule, *block.rows))


def interval_notes(table: LadderTable) -> list[str]:
    """What the intervals mean and over which seeds they were taken."""
    notes = [
        f"Brackets: {in_percent(table.level)} t-intervals over seeds. They are conditional on the "
        "teachers and the test set, and not corrected for several comparisons. "
        "Differences and ratios of times are paired by seed."
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
    note = (
        "Synergy: validation accuracy of the fusion that the last B-Step used; gain: less that of "
        f"the best teacher as it was loaded{then}; share: of the samples of the last B-Step epoch, "
        "those that the fusion taught (the others the teachers' average)."
    )
    time = (
        "Time: A-Steps, B-Steps and the view banks that a run reads, counted in full where they "
        "were there already."
    )
    return [note, time] if fused else []


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


def as_command(command: str) -> str:
    """A shell command in lines of at most `WIDTH` columns that can be pasted as they are."""
    lines = textwrap.wrap(
        command,
        WIDTH - len(_INDENT) - 2,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return " \\\n".join(_INDENT + line for line in lines)


_INDENT = "    "


def wrapped(lines: Sequence[str], *, later: str = "") -> str:
    """Lines of at most `WIDTH` columns; what does not fit goes on under them, after `later`."""
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=later, break_on_hyphens=False)
        for line in lines
    )


def percent(fraction: float) -> str:
    """A fraction in percent with two decimals; `–` where it is missing."""
    return MISSING if math.isnan(fraction) else f"{100 * fraction:.2f}".replace("-", "−")


def in_percent(level: float) -> str:
    """The level of an interval: `95 %`."""
    return f"{100 * level:g} %"


def points(fraction: float) -> str:
    """A difference of fractions as signed points with two decimals; `–` where it is missing."""
    if math.isnan(fraction):
        return MISSING
    rounded = round(100 * fraction, 2) + 0.0  # no "−0.00"
    return f"{rounded:+.2f}".replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign and two digits: `+0.56`."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def accuracy_cell(interval: Interval) -> str:
    """A fraction in percent with its interval: `90.12 [89.50, 90.74]`; where all seeds
    have the same, `90.12 (equal)`."""
    if interval.n < 2:
        return percent(interval.mean)
    if interval.low == interval.high:  # as many images at every seed: a band of no width would lie
        return f"{percent(interval.mean)} (equal)"
    return f"{percent(interval.mean)} [{percent(interval.low)}, {percent(interval.high)}]"


def value_cell(interval: Interval, decimals: int) -> str:
    """A mean of values, not of shares, with its interval: `7.896 [7.012, 8.780]`."""
    if interval.n < 2:
        return number(interval.mean, decimals)
    low, high = number(interval.low, decimals), number(interval.high, decimals)
    return f"{number(interval.mean, decimals)} [{low}, {high}]"


def paired_cell(interval: Interval) -> str:
    """A difference in points with its interval and the number of pairs."""
    if interval.n == 0:
        return MISSING
    bounds = f" [{points(interval.low)}, {points(interval.high)}]" if interval.n > 1 else ""
    return f"{points(interval.mean)}{bounds} n={interval.n}"


def number(value: float, decimals: int | None = None) -> str:
    """A number with one decimal, from 100 on with none; `–` where it is missing."""
    if math.isnan(value):
        return MISSING
    if decimals is None:
        decimals = 0 if abs(value) >= 100 else 1
    return f"{value:,.{decimals}f}".replace("-", "−")


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
