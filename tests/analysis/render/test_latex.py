"""Tables that can be pasted into a paper as they are."""

import re
import shutil
import subprocess

import pytest

from analysis.cells import accuracy_cell, paired_cell
from analysis.render.latex import as_latex, latex_columns, latex_text
from analysis.report_model import BETTER, Report, Section, Table, TextTable
from analysis.stats import mean_interval

HEADER = ("rung", "n", "test top-1, %", "vs KD, points")
CE, L3 = mean_interval([0.5, 0.52, 0.54]), mean_interval([0.6, 0.61, 0.62])
FEWER = mean_interval([0.1, 0.12])


def block(mark: str = "", difference=CE) -> TextTable:
    best = accuracy_cell(L3)
    best.mark = mark
    rows = (
        ("CE_a&b", "3", accuracy_cell(CE), "–"),
        ("[L3|β]", "3", best, paired_cell(difference)),
    )
    return TextTable(HEADER, rows)


def report(*blocks: TextTable) -> Report:
    tables = tuple(Table("A table", one) for one in blocks)
    section = Section("ladder", "to_y", "Ladder", tables=tables)
    return Report("asib", "ladder", "", "sqlite:///mlflow.db", 1, (section,), {})


def test_a_table_is_pasted_as_it_is():
    text = as_latex(report(block(BETTER)), "sd")
    assert r"CE\_a\&b & 52.00 $\pm$ 2.00 & -- \\" in text
    best = r"{[}L3\textbar{}$\beta$] & \textbf{61.00} $\pm$ 1.00$^{*}$"
    assert rf"{best} & +52.00 {{[}}+47.03, +56.97] \\" in text
    assert r"rung & test top-1, \% & vs KD, points \\" in text, "n is in the caption"
    for said in ("n = 3.", "Mean $\\pm$ standard deviation", "Bold: the highest.", "* better than"):
        assert said in text


def test_the_interval_is_the_other_form():
    text = as_latex(report(block()))
    assert r"\textbf{61.00} {[}58.52, 63.48] &" in text
    assert "standard deviation" not in text
    assert "better than" not in text


def test_another_n_stays_in_its_cell():
    text = as_latex(report(block(difference=FEWER)), "sd")
    assert "(n = 2)" in text
    assert "n = 3 where not stated." in text
    assert text.count("n = 3") == 1


def test_text_is_escaped():
    assert latex_text("50 % of β_1 − x") == r"50 \% of $\beta$\_1 $-$ x"
    assert latex_text("größer 数") == "größer ?"


def test_latex_wraps_the_columns_that_hold_words():
    numbers = TextTable(("rung", "n"), (("CE", "1"),))
    assert latex_columns(numbers) == "lr"
    words = TextTable(("warning", "runs", "which"), (("w" * 45, "6", "distill-L3-toy-s0, " * 8),))
    columns = latex_columns(words)
    shares = [float(share) for share in re.findall(r"p\{(\S+?)\\linewidth\}", columns)]
    assert re.sub(r">\{[^}]*\}p\{[^}]*\}", "p", columns) == "prp"
    assert shares[0] < shares[1]
    assert 0.7 < sum(shares) < 0.95  # what the number and the space between them leave


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex, which sets the tables")
@pytest.mark.parametrize("spread", ["sd", "interval"])
def test_every_table_fits_the_page(spread, tmp_path):
    wide = TextTable(("rung", *"abcdefgh"), (("a_rung", *[paired_cell(CE)] * 8),))
    words = TextTable(
        ("warning", "which"), (("gate_always_open " * 3, "distill-L3-toy-s0, " * 12),)
    )
    tables = as_latex(report(block(BETTER), wide, words), spread)
    packages = re.findall(r"\\usepackage\{[^}]*\}", tables)
    lines = [r"\documentclass{article}", *packages, r"\begin{document}", tables, r"\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
