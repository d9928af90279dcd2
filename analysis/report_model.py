"""The report as plain values: what every section returns, and what the writers write."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure


class TextTable(NamedTuple):
    """A table of text; the first column is a name, the others are numbers (some a `Measure`)."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Table(NamedTuple):
    """A table with its caption."""

    caption: str
    block: TextTable


_DATES = {"pdf": "CreationDate", "svg": "Date"}  # the field of a file that has its date


class ReportFigure(NamedTuple):
    """A figure, the name of its files, and its caption (with n)."""

    name: str
    figure: Figure
    caption: str

    @property
    def file_name(self) -> str:
        """The name of its files without a suffix; a bench of another's store is no path."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    def write(self, target: Path | BinaryIO, form: str) -> None:
        """Write it as png, pdf or svg. The same numbers give the same file; its parts are laid out
        once, whatever it is written as."""
        layout = self.figure.get_layout_engine()
        if layout is not None:
            layout.execute(self.figure)
            self.figure.set_layout_engine("none")
        metadata = {_DATES[form]: None} if form in _DATES else None
        with rc_context({"svg.hashsalt": self.name}):
            self.figure.savefig(target, format=form, metadata=metadata)


class MissingRun(NamedTuple):
    """A run that the store does not have, and the command that makes it."""

    what: str
    command: str


BETTER, WORSE = "*", "†"  # marks of a significant rung


class Section(NamedTuple):
    """One analysis of one bench. `run_ids` are the runs that its numbers come from; `summary` is
    what the summary of a report says of it (the first sentence where it is empty); `frame` holds
    its main table as numbers."""

    name: str
    bench: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    gaps: tuple[MissingRun, ...] = ()
    notes: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    frame: pd.DataFrame | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.sentences or self.tables or self.figures)


class Source(NamedTuple):
    """A run behind a number; `link` leads to it in the UI where the store has one."""

    run_id: str
    name: str
    key: str
    link: str | None


class Report(NamedTuple):
    """All sections of an analysis, and the runs behind them. `what` is the name of a section, or
    `comprehensive`; `runs` counts the training runs that were read."""

    experiment: str
    what: str
    filters: str
    store: str
    runs: int
    sections: tuple[Section, ...]
    sources: dict[str, Source]

    @property
    def benches(self) -> tuple[str, ...]:
        """The benches of the sections, in order."""
        return tuple(dict.fromkeys(section.bench for section in self.sections))

    def of_bench(self, bench: str) -> tuple[Section, ...]:
        """The sections of one bench."""
        return tuple(section for section in self.sections if section.bench == bench)


def seeds_caption(counts: Iterable[tuple[str, int]]) -> str:
    """How many seeds stand behind each name: `n = 3` for all, else one number a name."""
    pairs = list(counts)
    different = {n for _, n in pairs}
    if len(different) == 1:
        return f"n = {different.pop()} for each"
    return "n = " + ", ".join(f"{n} ({name})" for name, n in pairs)
