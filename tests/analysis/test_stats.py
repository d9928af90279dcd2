"""Intervals against scipy, closed forms and their own promise of coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import Interval, mean_interval, paired_difference


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_interval_equals_scipy(n, level):
    values = np.random.default_rng(n).normal(0.8, 0.01, n)
    low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values, level) == pytest.approx((n, values.mean(), low, high))


def test_interval_of_two_values_in_closed_form():
    # One degree of freedom is the Cauchy distribution: its quantile is tan(pi (p - 1/2)).
    half = 0.5 * math.tan(math.pi * 0.475)
    assert mean_interval([1.0, 2.0]) == pytest.approx((2, 1.5, 1.5 - half, 1.5 + half))


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5, 0.5]) == Interval(3, 0.5, 0.5, 0.5)


def test_one_value_has_no_interval_and_no_value_has_no_mean():
    one, none = mean_interval([0.5]), mean_interval([])
    assert (one.n, one.mean, none.n) == (1, 0.5, 0)
    assert all(map(math.isnan, (one.low, one.high, none.mean, none.low, none.high)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        mean_interval([0.5, bad])
    with pytest.raises(ValueError, match="not finite"):
        paired_difference({0: bad}, {0: 0.5})


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_level_is_a_fraction(level):
    with pytest.raises(ValueError, match="level"):
        mean_interval([0.5, 0.6], level)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_cover_as_often_as_they_say(n):
    samples = np.random.default_rng(0).normal(0.7, 0.02, (2000, n))
    intervals = [mean_interval(sample, 0.9) for sample in samples]
    covered = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    assert covered == pytest.approx(0.9, abs=4 * math.sqrt(0.9 * 0.1 / 2000))


def test_pairs_are_the_common_seeds_whatever_their_order():
    a, b = {3: 9.0, 2: 0.6, 1: 0.5}, {1: 0.4, 2: 0.3, 4: -9.0}
    assert paired_difference(a, b) == pytest.approx(mean_interval([0.1, 0.3]))
    assert paired_difference(a, {7: 0.1}).n == 0


def test_pairing_removes_what_the_seeds_share():
    shared = np.random.default_rng(1).normal(0.8, 0.05, 5)
    a = {seed: value + 0.01 for seed, value in enumerate(shared)}
    b = dict(enumerate(shared))
    found = paired_difference(a, b)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)
