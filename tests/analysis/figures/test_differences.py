"""The picture of the ladder: its numbers, and what is drawn of them."""

import json
import math

import pytest

from analysis.claims import family
from analysis.figures.differences import DifferencesInfo, differences, draw_differences
from tests.analysis.frames import bench_runs, distill, runs
from trainers import metrics


def info(*rows: dict) -> DifferencesInfo:
    return differences(family(bench_runs(runs(*rows))))


def rung(name: str, *tests: float, seconds: float = 10.0, **more) -> list[dict]:
    """Validation is as test: which control is shown is chosen by it."""
    return [
        distill(name, s, t, seconds=seconds, **{f"metrics.{metrics.BEST_VAL_TOP1}": t}) | more
        for s, t in enumerate(tests)
    ]


FOUND = info(
    *rung("L4", 0.80, 0.81, 0.82, seconds=25.0),
    *rung("kd", 0.69, 0.71),
    *rung("CE", 0.70, 0.71, 0.73),
    *rung("KD", 0.60, 0.61, 0.62),
    *rung("KD_null", 0.5, seconds=math.nan),
)


def test_every_rung_is_paired_with_the_best_control_in_the_order_of_the_ladder():
    assert FOUND.control == "CE"
    assert [row.rung for row in FOUND.rows] == ["KD", "L4", "KD_null", "kd"]
    one = FOUND.rows[1]
    assert one.by_seed == pytest.approx((0.10, 0.10, 0.09))
    assert one.interval.mean == pytest.approx(0.29 / 3)
    assert (one.interval.n, one.times, one.primary, one.significant) == (3, 2.5, True, True)
    assert [row.primary for row in FOUND.rows] == [False, True, False, False]
    assert FOUND.rows[3].by_seed == pytest.approx((-0.01, 0.0))


def test_no_control_or_no_common_seed_or_another_setting_is_no_row():
    assert info(*rung("L4", 0.8)) == DifferencesInfo("toy", "", ())
    assert info(*rung("CE", 0.7), distill("L4", 5, 0.8)).rows == ()
    other = [*rung("CE", 0.7, **{"tags.setting": "a"}), *rung("L4", 0.8, **{"tags.setting": "b"})]
    assert info(*other).rows == ()


def test_seeds_intervals_time_and_what_is_shown_are_drawn():
    (axes,) = draw_differences(FOUND).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "KD",
        "L4 (primary)",
        "KD_null",
        "kd (method)",
    ]
    assert axes.yaxis_inverted()
    notes = [text.get_text() for text in axes.texts]
    assert notes == ["1.00 × time, n = 3", "2.50 × time, n = 3", "n = 1", "1.00 × time, n = 2"]
    ticks = [line for line in axes.lines if line.get_marker() == "|" and len(line.get_xdata()) > 1]
    assert list(ticks[1].get_xdata()) == pytest.approx([10, 10, 9])
    low, high = axes.get_xlim()
    assert low < -20
    assert high > 10
    filled = {
        round(float(bars.lines[0].get_xdata()[0]), 2): bars.lines[0].get_markerfacecolor()
        for bars in axes.containers
    }
    assert filled[9.67] != "white"
    assert filled[-0.5] == "white"
    bars = [bars.lines[2][0].get_segments()[0] for bars in axes.containers]
    assert bars[1][0][0] == pytest.approx(100 * FOUND.rows[1].interval.low)


def test_a_row_far_from_all_others_is_a_number_at_the_frame():
    """A student of a teacher that knows half of the classes does not flatten the rest."""
    found = info(
        *rung("CE", 0.70, 0.71, 0.73),
        *rung("KD", 0.69, 0.71, 0.72),
        *rung("L3", 0.70, 0.72, 0.73),
        *rung("L4", 0.71, 0.72, 0.73),
        *rung("kd", 0.35, 0.36, 0.37),
    )
    (axes,) = draw_differences(found).axes
    assert axes.get_xlim()[0] > -5
    assert "← −35.33" in [text.get_text() for text in axes.texts]


def test_an_interval_longer_than_the_frame_ends_in_an_arrowhead():
    found = info(
        *rung("CE", 0.70, 0.71, 0.73), *rung("KD", 0.69, 0.71, 0.72), *rung("L2", 0.70, 0.74)
    )
    (axes,) = draw_differences(found).axes
    low, high = axes.get_xlim()
    row = [one.rung for one in found.rows].index("L2")
    ends = [
        (line.get_marker(), line.get_xydata().tolist())
        for line in axes.lines[1:]
        if line.get_xdata()[0] in (low, high)
    ]
    assert ends == [("<", [[low, row]]), (">", [[high, row]])]


def test_a_claim_that_leaves_the_drawn_control_out_fills_no_marker():
    """L2 is better than CE and KD, which its study named, and equal to the stack."""
    tests = {"CE": 0.6, "KD": 0.7, "stack": 0.8, "L2": 0.8}
    rows = [
        one
        for name, test in tests.items()
        for one in rung(
            name, *(test + 0.001 * math.sin(7 * s + sum(map(ord, name))) for s in range(5))
        )
    ]
    claim = json.dumps({"rung": "L2", "control": ["CE", "KD"], "margin": 0.5})
    study = {"tags.bench": "toy", "tags.stage": "study", "tags.claim": claim}
    found = family(bench_runs(runs(*rows, study)))
    claimed = found.of("L2")
    assert claimed is not None
    assert claimed.significant
    drawn = {row.rung: row for row in differences(found).rows}
    assert found.control == "stack"
    assert drawn["L2"].primary
    assert not drawn["L2"].significant
