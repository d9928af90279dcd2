"""The tables of a ladder and their notes."""

import math

import pandas as pd
import pytest

from analysis.cells import accuracy_cell, accuracy_text
from analysis.ladder_numbers import LadderRow, LadderTable, TeacherRow
from analysis.sections.ladder_tables import (
    accuracy_block,
    cost_block,
    fusion_notes,
    interval_notes,
    left_out_notes,
    teachers_block,
    validation_notes,
)
from analysis.stats import NO_INTERVAL, Interval
from tests.analysis.frames import distill, runs
from trainers import metrics

NAN = math.nan
FULL = LadderRow(
    "toy",
    "L3",
    (0, 1),
    Interval(2, 0.8523, 0.841, 0.8636),
    Interval(2, 0.012, -0.003, 0.021),
    Interval(1, -0.0004, NAN, NAN),
    synergy=0.7,
    gain=-0.01,
    share=0.9,
    seconds=1234.4,
    times_ce=1.234,
    images_per_second=99.94,
    peak_memory_mb=812.0,
)
BARE = LadderRow(
    "toy", "CE", (0,), Interval(1, 0.8, NAN, NAN), NO_INTERVAL, NO_INTERVAL, *[NAN] * 6
)


def test_accuracies_are_percent_and_differences_signed_points():
    assert accuracy_block([BARE, FULL]).rows == (
        ("CE", "1", "80.00", "–", "–", "–"),
        ("L3", "2", "85.23 [84.10, 86.36]", "–", "+1.20 [−0.30, +2.10] n=2", "−0.04 n=1"),
    )


def test_equal_values_are_no_interval_of_no_width():
    assert accuracy_cell(Interval(2, 0.7708, 0.7708, 0.7708)) == "77.08 (equal)"


def test_an_accuracy_in_a_sentence_has_its_unit():
    assert accuracy_text(Interval(2, 0.77, 0.77, 0.77)) == "77.00 % at every seed"
    assert accuracy_text(Interval(2, 0.77, 0.76, 0.78)) == "77.00 [76.00, 78.00] %"
    assert accuracy_text(Interval(1, 0.77, NAN, NAN)) == "77.00 %"


def test_a_rung_of_several_configurations_says_which_it_is():
    row = FULL._replace(configuration="method.ib_beta=0.001")
    for block in (accuracy_block([BARE, row]), cost_block([BARE, row])):
        assert [cells[0] for cells in block.rows] == ["CE", "L3 (ib_beta=0.001)"]


def test_a_gain_over_teachers_as_they_were_by_then_is_marked_and_explained():
    then = FULL._replace(rung="L4", as_loaded=False)
    assert [row[2] for row in cost_block([BARE, FULL, then]).rows] == ["–", "−1.00", "−1.00*"]
    assert fusion_notes([BARE]) == []
    assert "as it was loaded; share: of the samples" in fusion_notes([FULL])[0]
    assert "loaded (with *: as it was by then); share: " in fusion_notes([FULL, then])[0]


def test_costs_and_what_is_missing():
    assert cost_block([BARE, FULL]).rows == (
        ("CE", *["–"] * 7),
        ("L3", "70.00", "−1.00", "90.00", "1,234", "1.23", "99.9", "812"),
    )


def test_teachers_mark_the_last_epoch():
    rows = (
        TeacherRow("toy", "resnet20", 0, 0.9, True, 0.8, 5.04),
        TeacherRow("toy", "own", None, 0.7, False, NAN, NAN),
        TeacherRow("toy", "vgg8", 1, 0.7, True, 0.5, 1.0, "50", True, "4000"),
    )
    assert teachers_block(rows).rows == (
        ("resnet20", "0", "90.00", "80.00", "5.0"),
        ("own", "–", "70.00*", "–", "–"),
        ("vgg8 (4000 images, overlap 50)", "1", "70.00", "50.00", "1.0"),
    )


def test_notes_say_what_intervals_are_conditional_on_and_count_seeds():
    notes = interval_notes(LadderTable((BARE, FULL), 0.9), runs(distill("CE", 0, 0.5)))
    assert "90 % intervals" in notes[0]
    assert "conditional on the teachers" in notes[0]
    assert "alone: neither a record of each test image nor their number is known" in notes[0]
    assert notes[1].startswith("n = 1: ")
    assert notes[2] == "toy: 2 seeds (0, 1)."
    assert not any("n = 1" in note for note in interval_notes(LadderTable((FULL,), 0.9), runs()))


@pytest.mark.parametrize("count", [1, 10, 13])
def test_at_most_ten_of_the_runs_left_out_are_listed(count):
    reasons = ["failed", *["other configuration (a=1)"] * (count - 1)]
    frame = pd.DataFrame(
        [(f"id{index}", f"run {index}", reason) for index, reason in enumerate(reasons)],
        columns=["run_id", "name", "reason"],
    )
    notes = left_out_notes(frame)
    if count == 1:
        assert notes == ["Left out: 1 run (1 failed).", "id0  run 0: failed"]
    else:
        assert notes[0] == f"Left out: {count} runs ({count - 1} other configuration, 1 failed)."
        assert notes[2] == "id1  run 1: other configuration (a=1)"
        assert len(notes) == 11 + (count > 10)
    if count > 10:
        assert notes[-1] == "… and 3 more"


def test_nothing_left_out_is_reported():
    assert left_out_notes(pd.DataFrame(columns=["run_id", "name", "reason"])) == [
        "No run was left out."
    ]


def test_what_a_validation_image_is_worth_is_reported_where_all_runs_logged_their_number():
    images = f"metrics.{metrics.VAL_IMAGES}"
    known = runs(distill("CE", 0, 0.5, **{images: 144.0}), distill("L3", 0, 0.5, **{images: 144.0}))
    assert validation_notes(known) == ["Validation: 144 images, so that one is 0.69 points."]
    for other in (None, 0.0, 1333.0):
        unlike = distill("L3", 0, 0.5, **{images: other})
        assert validation_notes(runs(distill("CE", 0, 0.5, **{images: 144.0}), unlike)) == []
    assert validation_notes(runs(distill("CE", 0, 0.5))) == []


def test_the_gain_over_the_student_that_asks_has_a_column_where_it_was_logged():
    asked = cost_block([FULL._replace(gain_student=0.0228), BARE])
    at = asked.header.index("over student")
    assert [row[at] for row in asked.rows] == ["+2.28", "–"]
    assert "over student" not in cost_block([FULL, BARE]).header
