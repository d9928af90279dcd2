"""Intervals against scipy, closed forms and their own promise of coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import (
    Interval,
    correlation_interval,
    deviation_interval,
    expected_maximum,
    holm,
    mean_interval,
    one_standard_error,
    paired_difference,
    pareto_front,
    power,
    seeds_needed,
    share_interval,
)


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


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    missing = holm([0.02, math.nan, 0.5])
    assert missing[0] == pytest.approx(0.04)
    assert math.isnan(missing[1])
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_holm_with_weights_shares_the_level_and_passes_on_what_is_rejected():
    # 0.02 / (1/2) and 0.02 / (1/4) twice: the first is rejected, the other two share the level.
    assert holm([0.02, 0.02, 0.02], [2, 1, 1]) == pytest.approx((0.04, 0.04, 0.04))
    assert holm([0.03, 0.01], [1, 1]) == holm([0.03, 0.01])
    assert holm([0.04, math.nan], [1, 5]) == pytest.approx((0.04, math.nan), nan_ok=True)


def test_the_largest_of_several_equal_values_is_above_their_mean():
    draw = np.random.default_rng(0).normal(size=(20_000, 12)).max(1).mean()
    assert expected_maximum(12) == pytest.approx(draw, abs=0.03)
    assert expected_maximum(1) == 0.0


def test_holm_keeps_the_family_wise_error():
    p_values = np.random.default_rng(0).uniform(size=(4000, 5))
    wrong = np.mean([min(holm(family)) <= 0.05 for family in p_values])
    assert wrong == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_pareto_front():
    costs, gains = [1, 2, 3, 2, 1, math.nan], [5, 7, 6, 7, 4, 99]
    assert pareto_front(costs, gains) == (True, True, False, True, False, False)
    assert pareto_front([], []) == ()


def test_an_interval_of_shares_stays_among_shares_and_covers_as_often():
    assert share_interval([0.98, 0.99, 1.0])[1:] == pytest.approx((0.99, 0.965159, 1.0), abs=1e-6)
    assert share_interval([0.0, 0.02])[2:] == pytest.approx((0.0, 0.137062), abs=1e-6)
    inside = [0.5, 0.51, 0.52]
    assert share_interval(inside) == mean_interval(inside)
    assert math.isnan(share_interval([1.0]).high)
    draw = np.random.default_rng(0).beta(8.0, 1.0, (400, 3))
    covered = [
        [low <= 8 / 9 <= high for *_, low, high in map(kind, draw)]
        for kind in (share_interval, mean_interval)
    ]
    assert covered[0] == covered[1]


def test_one_standard_error_rule_is_paired():
    best = [0.90, 0.92, 0.94]
    near = [0.895, 0.921, 0.935]  # 0.003 below it, with a standard error of 0.002
    assert one_standard_error([near, best]) == (1,)
    assert one_standard_error([[0.90, 0.921, 0.935], best]) == (0, 1)
    assert one_standard_error([[one - 0.001 for one in best], best]) == (1,)  # worse at every seed
    assert one_standard_error([best, best]) == (0, 1)
    assert one_standard_error([[0.89, 0.9399, 0.9399], best]) == (0, 1)
    assert one_standard_error([[0.5], [0.6]]) == ()  # one seed has no standard error
    assert one_standard_error([[], []]) == ()
    assert one_standard_error([]) == ()


def test_power_by_simulation_and_at_its_limits():
    samples = np.random.default_rng(0).normal(1.0, 1.0, (4000, 5))
    seen = np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue <= 0.05)
    assert power(5, 1.0, 1.0) == pytest.approx(seen, abs=0.03)
    assert power(5, 0.0, 1.0) == pytest.approx(0.05)
    assert power(5, -1.0, 1.0) == pytest.approx(power(5, 1.0, 1.0))
    assert power(1000, 5.0, 1.0) == pytest.approx(1.0)
    assert math.isnan(power(1, 1.0, 1.0))
    assert power(1000, 1.0, 1.0, fixed=1.0) == pytest.approx(stats.norm.sf(0.96), abs=0.01)


def test_seeds_needed_are_the_fewest():
    # Textbook: an effect of one standard deviation needs 10 pairs for 80 % power, one half 34.
    assert seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(-0.5, 1.0) == 34
    n = seeds_needed(0.7, 1.3, 0.9)
    assert n is not None
    assert power(n - 1, 0.7, 1.3) < 0.9 <= power(n, 0.7, 1.3)
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(1.0, 1.0, fixed=0.5) is None  # no number of seeds makes up for images
    assert seeds_needed(1.0, 0.0) == 2
    with pytest.raises(ValueError, match="no number of seeds"):
        seeds_needed(0.0, 1.0)


def test_interval_of_a_correlation_is_that_of_scipy():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    found = stats.pearsonr(x, x + y)
    low, high = correlation_interval(float(found.statistic), 9)
    assert (low, high) == pytest.approx(tuple(found.confidence_interval(0.95)))
    assert correlation_interval(1.0, 9) == (1.0, 1.0)
    assert math.isnan(correlation_interval(0.5, 3)[0])


def test_interval_of_a_standard_deviation_covers():
    samples = np.random.default_rng(0).normal(0.0, 2.0, (1000, 4)).std(axis=1, ddof=1)
    bounds = [deviation_interval(one, 4) for one in samples]
    assert np.mean([low <= 2.0 <= high for low, high in bounds]) == pytest.approx(0.95, abs=0.02)
    assert math.isnan(deviation_interval(1.0, 1)[0])
