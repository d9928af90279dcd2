"""What is concluded, and in which words."""

import math

import pytest

from analysis.stats import Interval
from analysis.tables import ladder_table
from analysis.verdicts import Verdict, best_control, points, sentence, verdicts
from tests.analysis.frames import distill, runs

NAN = math.nan


def found(*rows: dict) -> list[Verdict]:
    kept = runs(*rows)
    return list(verdicts(kept, ladder_table(kept)))


def test_each_rung_is_compared_with_the_best_control_and_controls_with_ce():
    pairs = found(
        distill("CE", 0, 0.5, seconds=10.0),
        distill("KD", 0, 0.6, seconds=20.0),
        distill("kd", 0, 0.7, seconds=20.0),
        distill("L3", 0, 0.8, seconds=50.0),
    )
    assert [(pair.rung, pair.control) for pair in pairs] == [
        ("KD", "CE"),
        ("L3", "kd"),
        ("kd", "CE"),
    ]
    assert [pair.times for pair in pairs] == [2.0, 2.5, 2.0]
    assert pairs[1].difference[:2] == pytest.approx((1, 0.1))


def test_the_stronger_control_is_best_even_when_it_is_ce():
    (kd, l3) = found(distill("CE", 0, 0.6), distill("KD", 0, 0.5), distill("L3", 0, 0.7))
    assert (kd.control, l3.control) == ("CE", "CE")
    assert math.isnan(l3.times)


def test_each_bench_has_its_own_control():
    (l3,) = found(distill("CE", 0, 0.6), distill("L3", 0, 0.7), distill("L3", 0, 0.9, bench="b"))
    assert l3.bench == "toy"
    assert best_control(ladder_table(runs(distill("L3", 0, 0.7))), "toy") is None


@pytest.mark.parametrize(
    ("difference", "times", "words"),
    [
        (
            Interval(5, 0.008, 0.003, 0.013),
            1.2,
            "L3 − KD: +0.80 points, 95 % interval +0.30 to +1.30, n = 5, 1.20 × the time: "
            "better than KD.",
        ),
        (
            Interval(3, -0.008, -0.013, -0.003),
            NAN,
            "L3 − KD: −0.80 points, 95 % interval −1.30 to −0.30, n = 3: worse than KD.",
        ),
        (
            Interval(2, 0.008, -0.1, 0.116),
            1.0,
            "L3 − KD: +0.80 points, 95 % interval −10.00 to +11.60, n = 2, 1.00 × the time: "
            "no gain over KD shown.",
        ),
        (
            Interval(1, 0.008, NAN, NAN),
            1.2,
            "L3 − KD: +0.80 points, 1.20 × the time; one seed: no interval, no conclusion.",
        ),
        (
            Interval(0, NAN, NAN, NAN),
            1.2,
            "L3 − KD: no seed in common, or other data or budget: nothing to compare.",
        ),
    ],
)
def test_sentences(difference, times, words):
    assert sentence(Verdict("toy", "L3", "KD", difference, times), 0.95) == words


def test_an_interval_that_touches_zero_shows_nothing():
    same = Interval(3, 0.0, 0.0, 0.0)
    assert "no gain" in sentence(Verdict("toy", "L3", "KD", same, 1.0), 0.95)


def test_points():
    assert [points(value) for value in (0.0125, -0.5, 0.0, NAN)] == [
        "+1.25",
        "−50.00",
        "+0.00",
        "–",
    ]
