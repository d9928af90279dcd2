"""Teachers before and after every A-Step, on frames written by hand."""

import math

import pandas as pd
import pytest

from analysis.sections import teacher_adaptation
from tests.analysis.frames import bench_runs, distill, history, runs


def test_ten_teachers_before_and_after():
    logged = {f"metrics.teacher{k}/top1_before": 0.5 for k in range(10)}
    kept = runs(*[distill("L3", s, 0.6 + s / 10, gain=s / 100, **logged) for s in range(4)])
    points = pd.concat(
        [
            history(
                f"r{s}",
                **{
                    f"teacher{k}__top1_{when}": [(0, base + k / 100), (4, base + k / 100 + 0.02)]
                    for k in range(10)
                    for when, base in (("before", 0.5), ("after", 0.53))
                },
            )
            for s in range(4)
        ]
    )
    found = teacher_adaptation.adaptation_info(kept, points, "toy")
    assert [one.teacher for one in found.teachers] == list(range(10))
    assert found.teachers[9].before == pytest.approx((0.59, 0.61))
    assert found.teachers[9].change.mean == pytest.approx(0.05)
    assert found.correlation == pytest.approx(1.0)
    printed = teacher_adaptation.section(bench_runs(kept, points))
    assert printed.summary[0].startswith(
        "The worst change of a teacher of 10, not corrected for that choice: L3: teacher "
    )
    three = teacher_adaptation.adaptation_info(kept.head(3), points, "toy")
    assert math.isnan(three.correlation), "three runs always lie close to some line"


def test_a_correlation_has_an_interval():
    gains = (0.0, 0.01, 0.02, 0.03, 0.01)
    kept = runs(*[distill("L2", s, 0.6 - g + s / 1000, gain=g) for s, g in enumerate(gains)])
    printed = teacher_adaptation.section(bench_runs(kept)).sentences[-1]
    assert "correlation −0.99 [−1.00, −0.88] over 5 runs" in printed


def test_no_panel_is_drawn_of_teachers_that_do_not_adapt():
    kept = runs(*[distill("L2", s, 0.6 + s / 100, gain=s / 100) for s in range(2)])
    found = teacher_adaptation.section(bench_runs(kept))
    assert found.sentences[0] == "No run adapts its teachers (2 finished runs looked at)."
    (axes,) = found.figures[0].figure.axes
    assert axes.get_ylabel() == "student, test top-1, %"
    assert "A-Step)" not in axes.get_xlabel()
    assert found.figures[0].caption.startswith("Each run's synergy gain")
    logged = {"metrics.teacher0/top1_before": 0.5}
    point = history("r0", teacher0__top1_before=[(0, 0.5)], teacher0__top1_after=[(0, 0.6)])
    adapted = teacher_adaptation.section(bench_runs(runs(distill("L3", 0, 0.6, **logged)), point))
    (axes,) = adapted.figures[0].figure.axes
    assert axes.get_ylabel() == "teacher, validation top-1, %"
    assert adapted.figures[0].caption.startswith("Validation accuracy before")


def test_the_gain_is_given_over_the_best_teacher_and_over_their_average():
    """Of adapted teachers also as they were loaded; runs that did not log one are not counted."""
    old = distill("L3", 2, 0.6, gain=0.02)
    kept = runs(
        old,
        *[
            distill(
                "L3",
                s,
                0.6,
                gain=0.01 + s / 100,
                gain_average=-0.02,
                gain_original=0.03,
                gain_average_original=0.01,
            )
            for s in range(2)
        ],
        distill("KD", 0, 0.6),
    )
    printed = teacher_adaptation.section(bench_runs(kept))
    assert printed.sentences[1] == (
        "L3: the last fusion is +1.67 [+0.23, +3.10] points from the best teacher (n = 3) and "
        "−2.00 [−2.00, −2.00] points from the teachers' average (n = 2)."
    )
    (gained,) = printed.tables
    assert gained.block.rows == (
        ("L3, the best teacher", "3", "+1.67 [+0.23, +3.10]", "+3.00 [+3.00, +3.00]"),
        ("L3, the teachers' average", "2", "−2.00 [−2.00, −2.00]", "+1.00 [+1.00, +1.00]"),
    )
    assert not teacher_adaptation.section(bench_runs(runs(distill("KD", 0, 0.6)))).tables


def test_the_gain_is_given_over_the_student_that_asks_with_what_the_fusion_reads():
    kept = runs(
        *[
            distill(
                "L2",
                s,
                0.6,
                gain=0.4,
                gain_average=0.15,
                gain_student=0.02 + s / 100,
                query_share=0.5,
                token_share=0.25,
            )
            for s in range(2)
        ],
        distill("L1", 0, 0.6, gain=0.3),
    )
    printed = teacher_adaptation.section(bench_runs(kept))
    gained, read = printed.tables
    assert gained.caption.startswith(
        "Synergy gain: validation accuracy of the last fusion less that of its"
    )
    assert ("L2, the student that asks", "2", "+2.50 [−3.85, +8.85]", "–") in gained.block.rows
    assert read.block.rows == (("L2", "2", "50.00 [50.00, 50.00]", "25.00 [25.00, 25.00]"),)
    assert (
        "L2: the last fusion is +2.50 [−3.85, +8.85] points from the student that asks, "
        "+40.00 [+40.00, +40.00] points from the best teacher"
    ) in " ".join(line.replace(" (n = 2)", "") for line in printed.sentences)
