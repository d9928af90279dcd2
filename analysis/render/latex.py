"""The tables of a report as LaTeX, with the rules of booktabs."""

import math
import re
from collections import Counter

from analysis.cells import Measure
from analysis.render import wording
from analysis.report_model import BETTER, WORSE, Report, Table, TextTable
from analysis.words import printable

SPREADS = ("interval", "sd")  # what is printed next to a mean
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
    "[": "{[}",  # at the beginning of a row it would be an option
    "|": r"\textbar{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "β": r"$\beta$",
    "–": "--",
    "τ": r"$\tau$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "→": r"$\to$",
    "<": "$<$",
    ">": "$>$",
    "ⁿ": "$^n$",
    "…": r"\dots{}",
    "ε": r"$\varepsilon$",
    "†": r"$\dagger$",
}
_ROOM, _WORDS = 80, 30  # characters in a line of print; in a cell from which on it is wrapped
_NEEDS = "% needs \\usepackage{array,booktabs,graphicx}"
_LAST_LATIN = "\u017f"  # of the letters that every LaTeX has
_N = "n"  # the column that the caption takes the place of
_ERROR = "±"


def as_latex(report: Report, spread: str = SPREADS[0]) -> str:
    """Every table, ready to paste. A mean has its interval or its standard deviation (`spread`);
    the best of a column is bold; the caption has n; what is too wide is made to fit."""
    tables = [
        _latex_table(table, wording.heading(report, section), label, spread)
        for section in report.sections
        for number, table in enumerate(section.tables, 1)
        for label in [f"tab:{label_of(section.name)}-{label_of(section.bench)}-{number}"]
    ]
    return "\n".join([_NEEDS, *tables])


def label_of(name: str) -> str:
    """A name as a part of a label or of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def latex_text(text: str) -> str:
    """Text with everything that LaTeX would take for a command written out; `?` for letters that it
    has only with other packages."""
    return "".join(
        _LATEX.get(letter, letter if letter <= _LAST_LATIN else "?") for letter in printable(text)
    )


def _latex_table(table: Table, heading: str, label: str, spread: str) -> str:
    usual = _usual_n(table.block)
    block = _without_n(table.block, usual)
    texts = [[_plain(cell, usual, spread) for cell in row] for row in block.rows]
    best = [_best(column) for column in zip(*block.rows, strict=True)]
    rows = [
        [_cell(cell, text, cell in top) for cell, text, top in zip(row, line, best, strict=True)]
        for row, line in zip(block.rows, texts, strict=True)
    ]
    columns = latex_columns(TextTable(block.header, tuple(map(tuple, texts))))
    caption = " ".join([f"{heading}. {table.caption}.", *_explained(block, usual, spread)])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{{label}}}",
            rf"\setbox0=\hbox{{\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(latex_text, block.header)) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi",
            r"\end{table}",
        ]
    )


def _measures(block: TextTable) -> list[Measure]:
    return [cell for row in block.rows for cell in row if isinstance(cell, Measure)]


def _usual_n(block: TextTable) -> int | None:
    """The n of most measures; None where there are none."""
    counts = Counter(one.n for one in _measures(block))
    return counts.most_common(1)[0][0] if counts else None


def _without_n(block: TextTable, usual: int | None) -> TextTable:
    """Without a column that the caption says."""
    drop = [
        index
        for index, name in enumerate(block.header)
        if name == _N and {row[index] for row in block.rows} == {str(usual)}
    ]
    if not drop:
        return block
    rows = ([cell for index, cell in enumerate(row) if index not in drop] for row in block.rows)
    header = tuple(name for index, name in enumerate(block.header) if index not in drop)
    return TextTable(header, tuple(map(tuple, rows)))


def _plain(cell: str, usual: int | None, spread: str) -> str:
    """The text of a cell in print; n only where it is not the usual one."""
    if not isinstance(cell, Measure):
        return cell
    variation = cell.bounds
    if spread == "sd" and not math.isnan(cell.sd):
        decimals = len(cell.shown.partition(".")[2])
        variation = f"± {cell.sd:.{decimals}f}"
    other = "" if cell.n == usual else f"(n = {cell.n})"
    return " ".join(filter(None, (cell.shown, variation, other)))


def _best(column: tuple[str, ...]) -> set[str]:
    """The cells of the highest accuracy, as it is shown; none of a single one or of all."""
    known = [one for one in column if isinstance(one, Measure) and one.accuracy]
    top = max((one.mean for one in known), default=math.nan)
    best = {str(one) for one in known if round(one.mean, 2) == round(top, 2)}
    return best if len({one.shown for one in known}) > 1 else set()


def _cell(cell: str, text: str, best: bool) -> str:
    written = latex_text(text)
    if best and isinstance(cell, Measure):
        mean = latex_text(cell.shown)
        written = rf"\textbf{{{mean}}}" + written.removeprefix(mean)
    mark = cell.mark if isinstance(cell, Measure) else ""
    return written + f"$^{{{latex_text(mark).strip('$')}}}$" * bool(mark)


def _explained(block: TextTable, usual: int | None, spread: str) -> list[str]:
    """The part of the caption that explains the cells."""
    measures = _measures(block)
    means = any(not math.isnan(one.sd) for one in measures)
    texts = []
    if means and spread == "sd":
        texts.append("Mean ± standard deviation over seeds.")
    if any(one.bounds for one in measures if spread != "sd" or math.isnan(one.sd)):
        texts.append("Brackets: 95 % intervals.")
    if _ERROR in block.header:
        texts.append(f"Column {_ERROR}: standard error of the test images.")
    if usual is not None:
        other = " where not stated" * any(one.n != usual for one in measures)
        texts.append(f"n = {usual}{other}.")
    if any(_best(column) for column in zip(*block.rows, strict=True)):
        texts.append("Bold: the highest.")
    marks = {one.mark for one in measures}
    meant = ((BETTER, "better than each control"), (WORSE, "worse than a control"))
    explained = [f"{mark} {text}" for mark, text in meant if mark in marks]
    return [*texts, f"{', '.join(explained)} (5 % in all, Holm)."] if explained else texts


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
