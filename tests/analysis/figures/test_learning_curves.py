"""What is drawn, as numbers and as artists."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.figures import style
from analysis.figures.learning_curves import (
    Curve,
    CurvesInfo,
    Mixed,
    curves_caption,
    draw_learning_curves,
    learning_curves,
    mean_points,
)
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


def mixing(start: str, epochs: str = "40", alpha: str = "1.0", stop: str = "None") -> dict:
    return {
        f"params.{name}": value
        for name, value in (
            ("budget.student_epochs", epochs),
            ("mix.start", start),
            ("mix.stop", stop),
            ("mix.mixup_alpha", "0.0"),
            ("mix.cutmix_alpha", alpha),
        )
    }


def mixed(*options: dict) -> Mixed | None:
    rows = [distill(f"L{k}", 0, 0.5) | one for k, one in enumerate(options)]
    return learning_curves(runs(*rows), history("r0"), "toy").mixed


def test_the_epochs_of_mixed_images_are_those_of_most_runs():
    quarter = mixing("0.25")
    assert mixed(quarter) == Mixed(10.0, 40.0, ())
    assert mixed(mixing("5", stop="0.5")) == Mixed(5.0, 20.0, ())
    assert mixed(quarter, mixing("0.25", "60"), quarter) == Mixed(10.0, 40.0, ("L1",))
    assert mixed(mixing("0.25", alpha="0.0")) is mixed({}) is None


def test_a_step_and_mixed_images_are_distinguished(info):
    """Mixing begins in all rungs where some have an A-Step: what follows is not the A-Step's."""
    figure = draw_learning_curves(info._replace(mixed=Mixed(2.0, 4.0, ())))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-2:] == ["A-Step (of the fusion)", "images mixed (all rungs)"]
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_width()) == (2.0, 2.0)
    frame, legend = (one.get_window_extent() for one in (figure, figure.legends[0]))
    assert frame.x0 <= legend.x0 < legend.x1 <= frame.x1
    caption = curves_caption(info._replace(mixed=Mixed(2.0, 4.0, ("KD",))))
    assert "Dotted lines: where A-Steps begin (CE, KD have none)." in caption
    assert "(KD mix at other epochs or never); accuracy may fall" in caption
    assert "Shaded" not in curves_caption(info)


def test_curves_without_any_value_are_still_a_figure():
    figure = draw_learning_curves(CurvesInfo("toy", ()))
    figure.draw_without_rendering()
    assert not figure.axes[0].lines


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
