"""What is drawn, as numbers and as artists."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import style
from analysis.figures import (
    CostInfo,
    CostPoint,
    Curve,
    CurvesInfo,
    accuracy_cost,
    draw_accuracy_cost,
    draw_learning_curves,
    learning_curves,
    mean_points,
)
from analysis.stats import Interval
from analysis.tables import ladder_table
from tests.analysis.frames import distill, history, runs

NAN = math.nan


@pytest.fixture(scope="module")
def info() -> CurvesInfo:
    """CE with two epochs; L3 with two stages of two A-Step and two B-Step epochs, two seeds."""
    kept = runs(
        distill("L3", 1, 0.5),
        distill("L3", 0, 0.5),
        distill("CE", 0, 0.5),
        distill("KD", 0, 0.5),
        distill("CE", 0, 0.5, bench="other"),
    )
    steps = [(step, float(step % 4 > 1)) for step in range(8)]
    found = [
        history(
            run_id,
            stage__step=steps,
            synergy__top1=[(0, 0.5), (1, 0.4), (5, 0.6)],
            val__top1=[(2, 0.1), (3, 0.2 + more), (6, NAN), (7, 0.4 + more)],
        )
        for run_id, more in (("r0", 0.1), ("r1", 0.0))
    ]
    found.append(history("r2", val__top1=[(0, 0.1), (1, 0.2)]))
    return learning_curves(kept, pd.concat(found), "toy")


def test_curves_are_drawn_over_student_epochs(info):
    assert info == CurvesInfo(
        "toy",
        (
            Curve("CE", 0, ((1.0, 0.1), (2.0, 0.2)), (), ()),
            Curve("KD", 0, (), (), ()),
            Curve(
                "L3",
                0,
                ((1.0, 0.1), (2.0, 0.2), (4.0, 0.4)),
                ((0.0, 0.5), (2.0, 0.6)),
                (0.0, 2.0),
            ),
            Curve(
                "L3",
                1,
                ((1.0, 0.1), (2.0, pytest.approx(0.3)), (4.0, 0.5)),
                ((0.0, 0.5), (2.0, 0.6)),
                (0.0, 2.0),
            ),
        ),
    )


def test_the_mean_stops_where_a_seed_is_missing():
    assert mean_points([((1.0, 0.2), (2.0, 0.4)), ((1.0, 0.4),)]) == ((1.0, pytest.approx(0.3)),)
    assert mean_points([]) == ()


def test_artists_of_the_learning_curves(info):
    (axes,) = draw_learning_curves(info).axes
    looks = style.looks(["CE", "L3"])
    drawn = [(line.get_color(), line.get_linewidth(), line.get_linestyle()) for line in axes.lines]
    of_l3 = [line[1:] for line in drawn if line[0] == looks["L3"].colour]
    assert of_l3 == [(0.5, "-"), (1.8, "-"), (0.9, "--")]
    seeds = next(line for line in axes.lines if line.get_linewidth() == 0.5)
    assert np.isnan(seeds.get_ydata()).nonzero()[0].tolist() == [3, 7]  # a gap after each seed
    assert [line[1:] for line in drawn if line[0] == looks["CE"].colour] == [(1.8, "-")]
    boundaries = [line for line in axes.lines if line.get_color() == style.BOUNDARY]
    assert [line.get_xdata()[0] for line in boundaries] == [0.0, 2.0]
    mean = next(
        line
        for line in axes.lines
        if (line.get_color(), line.get_linewidth()) == (looks["L3"].colour, 1.8)
    )
    assert mean.get_ydata() == pytest.approx([10, 25, 45])
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["CE (n = 1)", "KD (n = 1): no curve", "L3 (n = 2)"]


def test_curves_without_any_value_are_still_a_figure():
    figure = draw_learning_curves(CurvesInfo("toy", ()))
    figure.draw_without_rendering()
    assert not figure.axes[0].lines


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


def test_rungs_differ_in_colour_and_marker():
    looks = style.looks(["CE", "KD", "L0", "L1", "L2", "L3", "L4"])
    assert len({look.colour for look in looks.values()}) == 7
    assert len({look.marker for look in looks.values()}) == 7
    assert style.looks(["dkd", "crd"])["dkd"] != style.looks(["dkd", "crd"])["crd"]


def test_saving_writes_each_format_with_the_same_bytes_every_time(info, tmp_path):
    def saved() -> list[bytes]:
        files = style.save(draw_learning_curves(info), tmp_path / "curves_v1.5")
        assert [file.name for file in files] == ["curves_v1.5.png", "curves_v1.5.pdf"]
        return [file.read_bytes() for file in files]

    assert saved() == saved()
