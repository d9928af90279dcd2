"""Tables and commands as text and as Markdown."""

import subprocess

from analysis.render.markdown import as_table
from analysis.render.text import WIDTH, as_command, as_text, wrapped
from analysis.report_model import TextTable


def test_text_is_aligned():
    assert as_text(TextTable(("rung", "n"), (("CE", "1"), ("L3", "12")))) == (
        "rung   n\nCE     1\nL3    12"
    )


def test_a_long_cell_is_cut_and_not_the_name_next_to_it():
    long = ", ".join(f"distill-L2-digits-s{seed}" for seed in range(9))
    lines = as_text(TextTable(("warning", "runs", "which"), (("gate_always_open", "9", long),)))
    head, row = lines.splitlines()
    assert head.startswith("warning")
    assert row.startswith("gate_always_open")
    assert row.endswith("…")
    assert max(map(len, (head, row))) <= WIDTH


def test_a_long_command_is_broken_so_that_it_can_be_pasted():
    command = " ".join(
        ["python -m pipeline distill -m", *(f"data.option{k}=a,b" for k in range(9))]
    )
    lines = as_command(command).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= WIDTH
    session = ["bash", "-c", "python() { echo python $*; }\n" + "\n".join(lines)]
    assert subprocess.run(session, capture_output=True, text=True).stdout == command + "\n"


def test_long_lines_go_on_below():
    lines = wrapped(["word " * 50, "end"]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1] == "end"


def test_the_widest_rows_fit_and_numbers_are_never_cut():
    wide = TextTable(("rung", "a", "b"), (("a_rung_with_a_very_long_name", "1" * 39, "2" * 39),))
    text = as_text(wide)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "1" * 39 in text
    assert "2" * 39 in text
    assert "a_rung_" in text
    assert "a_rung_with_a_very_long_name" in as_table(wide)


def test_markdown():
    assert as_table(TextTable(("rung", "n"), (("CE", "1"),))) == (
        "| rung | n |\n| :-- | --: |\n| CE | 1 |"
    )
