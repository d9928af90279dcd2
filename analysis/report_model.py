"""What every analysis hands back, whatever it is about: words, tables, figures and gaps."""

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from analysis.render.text import TextTable


class Table(NamedTuple):
    """A table with the sentence that stands over it."""

    caption: str
    block: TextTable


class Drawing(NamedTuple):
    """A figure, the name of its files, and the sentence that stands under it (with n)."""

    name: str
    figure: Figure
    caption: str


class MissingRun(NamedTuple):
    """Something that the store does not have, and the command that would fill it."""

    what: str
    command: str


class Section(NamedTuple):
    """One analysis of one bench. `run_ids` are the runs that its numbers come from; `summary`
    is what stands on top of a report of several (the first sentence where it is empty)."""

    name: str
    bench: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    gaps: tuple[MissingRun, ...] = ()
    notes: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()


def counted(count: int, what: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {what}{'s' * (count != 1)}"


def seeds_caption(counts: Iterable[tuple[str, int]]) -> str:
    """How many seeds stand behind each name: `n = 3` for all, else one number a name."""
    pairs = list(counts)
    different = {n for _, n in pairs}
    if len(different) == 1:
        return f"n = {different.pop()} for each"
    return "n = " + ", ".join(f"{n} ({name})" for name, n in pairs)
