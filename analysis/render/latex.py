"""The tables of a report as LaTeX, with the rules of booktabs."""

import re

import pandas as pd

from analysis.render import wording
from analysis.report_model import Report, TextTable
from analysis.words import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "β": r"$\beta$",
    "–": "--",
    "τ": r"$\tau$",
    "≥": r"$\ge$",
    "<": "$<$",
    ">": "$>$",
    "ⁿ": "$^n$",
    "…": r"\dots{}",
    "ε": r"$\varepsilon$",
}
_ROOM, _WORDS = 80, 30  # characters in a line of print; in a cell from which on it is wrapped


def as_latex(report: Report) -> str:
    """Every table with the rules of booktabs, ready to paste (`\\usepackage{array,booktabs}`)."""
    tables = [
        _latex_table(table.block, f"{wording.heading(report, section)}. {table.caption}.", label)
        for section in report.sections
        for number, table in enumerate(section.tables, 1)
        for label in [f"tab:{_label(section.name)}-{_label(section.bench)}-{number}"]
    ]
    return "\n".join(["% needs \\usepackage{array,booktabs}", *tables])


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def latex_text(text: str) -> str:
    """Text with everything that LaTeX would take for a command written out."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


def _latex_table(table: TextTable, caption: str, label: str) -> str:
    cells = pd.DataFrame(table.rows, columns=table.header).map(latex_text)
    styled = cells.rename(columns=latex_text).style.hide(axis="index")
    return styled.to_latex(
        column_format=latex_columns(table),
        position_float="centering",
        hrules=True,
        caption=latex_text(caption),
        label=label,
    )


def latex_columns(block: TextTable) -> str:
    """The columns of a table: a name, then numbers; those with long words are paragraphs, which
    share the room that the others leave."""
    widths = [max(map(len, cells)) for cells in zip(block.header, *block.rows, strict=True)]
    words = {index: min(width, _ROOM) for index, width in enumerate(widths) if width > _WORDS}
    room = 0.95 - sum(width + 2 for width in widths if width <= _WORDS) / _ROOM
    letters = ["l" if index == 0 else "r" for index in range(len(widths))]
    for index, width in words.items():
        share = max(room, 0.3) * width / sum(words.values())
        letters[index] = rf">{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}"
    return "".join(letters)
