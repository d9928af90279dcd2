"""A report, and its tables, as plain text of at most 100 columns."""

import textwrap
from collections.abc import Sequence

from analysis.render import wording
from analysis.report_model import Report, TextTable
from analysis.words import printable

WIDTH = 100
_TEXT = 40  # a cell that is longer than any number
_INDENT = "    "


def as_terminal(report: Report) -> str:
    """Summary, warnings and missing runs, of a single analysis its tables too; at most 100
    columns."""
    single = len({section.name for section in report.sections}) == 1
    parts = [wording.title(report), wording.about(report)]
    parts += [] if report.sections else [wording.nothing(report)]
    for bench, sentences in wording.summary(report):
        heading = f"Bench {bench}"
        parts += [f"{heading}\n{'-' * len(heading)}"]
        parts += [wrapped(sentences or [wording.nothing(report)])]
        for section in report.of_bench(bench) if single else ():
            parts += [f"{table.caption}\n{as_text(table.block)}" for table in section.tables]
            parts += [wrapped(section.notes)] if section.notes else []
    found = wording.warnings(report)
    parts += [wrapped(["Warnings:", *found])] if found else []
    missing = _missing(report)
    return printable("\n\n".join([*parts, missing] if missing else parts)) + "\n"


def _missing(report: Report) -> str:
    """What is missing, and the commands that make it."""
    gaps = wording.missing(report)
    lines = ["Missing:"] * bool(gaps)
    for gap in gaps:
        lines += [wrapped([f"- {gap.what}:"], later="  "), as_command(gap.command)]
    return "\n".join(lines)


def as_text(block: TextTable) -> str:
    """Aligned columns; where a line would be longer than `WIDTH` the widest text column
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


def wrapped(lines: Sequence[str], *, later: str = "") -> str:
    """Lines of at most `WIDTH` columns; what does not fit continues below, after `later`."""
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=later, break_on_hyphens=False)
        for line in lines
    )


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
