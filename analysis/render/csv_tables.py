"""The tables of a report as CSV: a number a cell, where the page has an interval in one."""

import csv
import io
import math
import re

from analysis.cells import Measure
from analysis.render.latex import label_of
from analysis.report_model import Report, TextTable
from analysis.words import printable

_NUMBER = re.compile(r"[+−-]?[\d,]*\.?\d+\*?")
_PARTS = ("mean", "low", "high", "sd", "n")


def csv_tables(report: Report) -> dict[str, str]:
    """The text of each table's file, by the file's name (`table_ladder_digits_1.csv`)."""
    return {
        f"table_{label_of(section.name)}_{label_of(section.bench)}_{number}.csv": as_csv(
            table.block
        )
        for section in report.sections
        for number, table in enumerate(section.tables, 1)
    }


def as_csv(block: TextTable) -> str:
    """A column a number; a missing one is empty."""
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.header)
    header: list[str] = []
    values: list[tuple[str, ...]] = []
    for name, cells in zip(block.header, columns, strict=True):
        if not any(isinstance(cell, Measure) for cell in cells):
            header.append(name)
            values.append(tuple(map(_value, cells)))
            continue
        for part in _PARTS:
            known = tuple(_part(cell, part) for cell in cells)
            if any(known):
                header.append(f"{name} {part}")
                values.append(known)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *zip(*values, strict=True)])
    return text.getvalue()


def _part(cell: str, part: str) -> str:
    if not isinstance(cell, Measure):
        return ""
    value = getattr(cell, part)
    return str(value) if part == "n" else "" if math.isnan(value) else f"{value:.6g}"


def _value(cell: str) -> str:
    """A number as a program reads it, any other text as it is."""
    if cell == "–":
        return ""
    number = _NUMBER.fullmatch(cell)
    return cell.replace("−", "-").replace(",", "").rstrip("*") if number else printable(cell)
