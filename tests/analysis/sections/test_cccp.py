"""J at step boundaries, and how accuracy settles, on frames written by hand."""

import math

import pandas as pd
import pytest

from analysis.figures.learning_curves import learning_curves
from analysis.sections import cccp
from analysis.stats import mean_interval
from tests.analysis.frames import bench_runs, distill, history, params, runs


def test_stability_in_closed_form():
    def points(*values: float):
        return tuple((float(x), y) for x, y in enumerate(values, start=1))

    assert cccp.late_spread(points(*[0.1] * 8, 0.5, 0.7)) == pytest.approx(math.sqrt(0.02))
    assert math.isnan(cccp.late_spread(points(0.5)))
    assert cccp.epochs_to(points(0.1, 0.949, 0.96, 1.0)) == 3
    assert cccp.epochs_to(points(0.1, 0.96, 1.0)[:1] + points(0.1, 0.2, 0.3, 0.96, 1.0)[3:]) == 4
    kept = runs(distill("L2", 0, 0.5, **params(method__num_stages=4)), distill("L1", 0, 0.5))
    steps = {"stage__step": [(0, 0.0), (1, 1.0), (2, 1.0)]}
    points = pd.concat(
        [
            history(
                "r0",
                val__top1=[(1, 0.5), (2, 0.6)],
                stage__J=[(0, 3.0), (1, 2.0), (2, 2.5)],
                **steps,
            ),
            history("r1", val__top1=[(1, 0.5), (2, 0.5)], **steps),
        ]
    )
    found = cccp.stability_info(kept, points, "toy")
    with_cccp = next(row for row in found.rows if row.rung == "L2")
    assert with_cccp.objective == (((1.0, 3.0), (2.0, 2.0), (3.0, 2.5)),)
    assert with_cccp.rises == 0.5
    assert (with_cccp.stages, with_cccp.reached) == (4, {0: 2.0})
    assert found.pair == ("L2", "L1")
    claim, described = cccp.section(bench_runs(kept, points)).sentences[:2]
    assert claim.startswith("L2 − L1: ")
    assert described.startswith("L2 (with CCCP) − L1 (without)")
    assert described.endswith("not a claim.")


def test_j_has_an_interval_at_every_step_that_all_seeds_have():
    kept = runs(*[distill("L2", s, 0.5, **params(method__num_stages=4)) for s in range(3)])
    paths = ([3.0, 2.0, 1.0], [3.2, 2.4, math.inf], [3.4, 1.9, 1.2])
    points = [
        history(
            f"r{s}",
            stage__step=[(0, 0.0), (1, 1.0), (2, 0.0)],
            val__top1=[(1, 0.5)],
            stage__J=list(enumerate(path)),
        )
        for s, path in enumerate(paths)
    ]
    found = cccp.section(bench_runs(kept, *points)).figures[0]
    (axes,) = found.figure.axes
    ends = axes.containers[0].lines[2][0].get_segments()
    expected = [mean_interval(values) for values in ([3.0, 3.2, 3.4], [2.0, 2.4, 1.9])]
    assert [tuple(bar[:, 1]) for bar in ends] == [pytest.approx((i.low, i.high)) for i in expected]
    assert "means with 95 % t-intervals" in found.caption
    assert found.caption.endswith("n = 3 for each.")


def test_epochs_are_counted_by_their_index_where_a_curve_has_holes() -> None:
    """The third epoch has no row: the fourth is the fourth."""
    kept = runs(distill("L2", 0, 0.5))
    points = history(
        "r0",
        stage__step=[(0, 1.0), (1, 1.0), (3, 1.0), (4, 0.0), (5, 1.0)],
        val__top1=[(0, 0.1), (1, 0.2), (3, 0.5), (5, 0.6)],
    )
    (curve,) = learning_curves(kept, points, "toy").curves
    assert curve.student == ((1.0, 0.1), (2.0, 0.2), (4.0, 0.5), (5.0, 0.6))
