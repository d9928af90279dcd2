"""Accuracy against cost, as numbers and as artists."""

import math

import pytest

from analysis.figures.accuracy_cost import CostInfo, CostPoint, accuracy_cost, draw_accuracy_cost
from analysis.ladder_numbers import ladder_table
from analysis.stats import Interval
from tests.analysis.frames import distill, runs

NAN = math.nan


def test_cost_is_read_from_the_table_with_its_front():
    kept = runs(
        *(distill("CE", seed, value, seconds=10.0) for seed, value in ((0, 0.5), (1, 0.6))),
        distill("KD", 0, 0.5, seconds=12.0),
        distill("L3", 0, 0.7, seconds=20.0),
        distill("L4", 0, 0.7, seconds=20.0),
        distill("L2", 0, 0.9),
    )
    table = ladder_table(kept)
    found = accuracy_cost(table, "toy")
    assert [(point.rung, point.seconds, point.front) for point in found.points] == [
        ("CE", 10.0, True),
        ("KD", 12.0, False),
        ("L3", 20.0, True),
        ("L4", 20.0, True),
    ]
    assert found.missing == ("L2",)
    assert found.points[0].test == table.rows[0].test


def test_artists_of_the_cost_figure():
    info = CostInfo(
        "toy",
        (
            CostPoint("CE", 10.0, Interval(3, 0.5, 0.4, 0.6), True),
            CostPoint("KD", 11.0, Interval(2, 0.5, -1.0, 2.0), False),
            CostPoint("L3", 20.0, Interval(1, 0.7, NAN, NAN), True),
        ),
        ("L2",),
        0.95,
    )
    (axes,) = draw_accuracy_cost(info).axes
    assert [text.get_text() for text in axes.texts] == [
        "CE (n = 3)",
        "KD (n = 2, bar cut)",
        "L3 (n = 1)",
    ]
    front = axes.lines[0]
    assert (list(front.get_xdata()), front.get_ydata()) == ([10, 20], pytest.approx([50, 70]))
    low, high = axes.get_ylim()
    assert 30 < low < 40
    assert 70 < high < 80
    assert "no time: L2" in axes.get_title(loc="left")
    assert [len(bars.get_segments()) for bars in axes.collections] == [1, 1]
    assert axes.collections[0].get_segments()[0][:, 1] == pytest.approx([40, 60])


def test_no_point_is_still_a_figure():
    draw_accuracy_cost(CostInfo("toy", (), ("CE",), 0.95)).draw_without_rendering()
