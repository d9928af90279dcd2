"""What is drawn, as numbers and as artists."""

import math
from io import BytesIO

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
    reference,
)
from analysis.report_model import ReportFigure
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


def lines_of(axes, colour: str) -> list[tuple[float, str]]:
    drawn = [line for line in axes.lines if line.get_color() == colour]
    return [(line.get_linewidth(), line.get_linestyle()) for line in drawn]


def test_artists_of_the_learning_curves(info):
    of_ce, of_kd, of_l3 = draw_learning_curves(info).axes
    looks = style.looks(["CE", "L3"])
    assert lines_of(of_l3, looks["L3"].colour) == [(0.5, "-"), (1.8, "-"), (0.9, "--")]
    assert lines_of(of_ce, looks["CE"].colour) == [(1.8, "-")]
    seeds = next(line for line in of_l3.lines if line.get_linewidth() == 0.5)
    assert np.isnan(seeds.get_ydata()).nonzero()[0].tolist() == [3, 7]  # a gap after each seed
    stages = [line for line in of_l3.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in stages] == [0.0, 2.0]
    mean = next(line for line in of_l3.lines if line.get_linewidth() == 1.8)
    assert mean.get_ydata() == pytest.approx([10, 25, 45])
    titles = [axes.get_title(loc="left") for axes in (of_ce, of_kd, of_l3)]
    assert titles == ["CE (n = 1)", "KD (n = 1): no curve", "L3 (n = 2)"]


def test_each_panel_shows_the_reference_and_only_one_axis_is_read(info):
    """KD has no curve here, so that CE is what the others are held against."""
    assert reference(info) == "CE"
    figure = draw_learning_curves(info)
    grey = [len(lines_of(axes, style.BOUNDARY)) for axes in figure.axes]
    assert grey == [2, 3, 3]  # two stages, and the reference in all panels but its own
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    assert "Grey in each panel: the mean of CE." in curves_caption(info)
    alone = info._replace(curves=info.curves[:1])
    assert reference(alone) == ""
    assert "Grey" not in curves_caption(alone)


@pytest.mark.parametrize("count", [1, 4, 7, 18])
def test_panels_of_many_rungs_do_not_cover_each_other(info, count):
    curve = info.curves[-1]
    many = [curve._replace(rung=f"a_rung_{k:02}") for k in range(count)]
    figure = draw_learning_curves(CurvesInfo("toy", tuple(many)))
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == count
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)
    legend = figure.legends[0].get_window_extent()
    assert not legend.count_overlaps(boxes)


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


def contrast_with_white(colour: str) -> float:
    """As the Web Content Accessibility Guidelines 2.2 define it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_every_line_can_be_seen_on_the_page():
    names = [*style._COLOURS, *style._BESIDE, "own1", "own2", "own3", "own4"]
    colours = [look.colour for look in style.looks(names).values()]
    colours += [style.series(index).colour for index in range(5)] + [style.BOUNDARY, style.TEXT]
    assert {one: contrast_with_white(one) for one in colours if contrast_with_white(one) < 3} == {}


def test_every_format_has_the_same_bytes_every_time(info):
    def written() -> list[bytes]:
        figure = ReportFigure("curves", draw_learning_curves(info), "")
        buffers = [BytesIO() for _ in range(3)]
        for buffer, form in zip(buffers, ("png", "pdf", "svg"), strict=True):
            figure.write(buffer, form)
        return [buffer.getvalue() for buffer in buffers]

    assert written() == written()
