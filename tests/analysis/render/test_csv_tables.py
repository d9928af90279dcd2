"""A number a cell."""

import csv

from analysis.cells import accuracy_cell, paired_cell
from analysis.render.csv_tables import as_csv, csv_tables
from analysis.report_model import Report, Section, Table, TextTable
from analysis.stats import mean_interval

BLOCK = TextTable(
    ("rung", "time, s", "test top-1, %", "vs KD, points", "p, Holm"),
    (
        ("CE", "1,234", accuracy_cell(mean_interval([0.5, 0.52, 0.54])), "–", "< 0.001"),
        ("L3", "−0.5*", "–", paired_cell(mean_interval([-0.01])), "0.500"),
    ),
)


def test_intervals_are_columns_and_numbers_are_numbers():
    header, ce, l3 = csv.reader(as_csv(BLOCK).splitlines())
    rows = [dict(zip(header, one, strict=True)) for one in (ce, l3)]
    assert rows[0] == {
        "rung": "CE",
        "time, s": "1234",
        "test top-1, % mean": "52",
        "test top-1, % low": "47.0317",
        "test top-1, % high": "56.9683",
        "test top-1, % sd": "2",
        "test top-1, % n": "3",
        "vs KD, points mean": "",
        "vs KD, points n": "",
        "p, Holm": "< 0.001",
    }
    assert rows[1]["time, s"] == "-0.5"
    assert rows[1]["test top-1, % mean"] == ""
    assert rows[1]["vs KD, points mean"] == "-1"


def test_a_file_for_each_table():
    section = Section("ladder", "a/b", "Ladder", tables=(Table("A", BLOCK), Table("B", BLOCK)))
    report = Report("asib", "ladder", "", "sqlite:///mlflow.db", 1, (section,), {})
    assert list(csv_tables(report)) == ["table_ladder_a-b_1.csv", "table_ladder_a-b_2.csv"]
