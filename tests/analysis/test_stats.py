"""Intervals against scipy, closed forms and their own promise of coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats import (
    Interval,
    bootstrap_interval,
    can_permute,
    correlation_interval,
    holm,
    mean_interval,
    one_standard_error,
    paired_difference,
    pareto_front,
    permutation_test,
    power,
    primary_interval,
    seeds_needed,
    share_interval,
    t_test,
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


def test_bootstrap_is_of_resampled_means_and_starts_at_twenty():
    values = np.random.default_rng(3).normal(0.8, 0.02, 25)
    rows = np.random.default_rng(0).integers(25, size=(10_000, 25))
    bounds = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    found = bootstrap_interval(values)
    assert found.n == 25
    assert (found.low, found.high) == pytest.approx(tuple(bounds))
    assert bootstrap_interval(values) == found  # the same numbers every time
    with pytest.raises(ValueError, match="fewer than 20"):
        bootstrap_interval(values[:19])
    assert primary_interval(values[:19]) == mean_interval(values[:19])
    assert primary_interval(values) == found


def test_bootstrap_covers_from_twenty_on_but_not_at_five(monkeypatch):
    monkeypatch.setattr("analysis.stats.RESAMPLES", 400)

    def coverage(n: int) -> float:
        samples = np.random.default_rng(n).normal(size=(600, n))
        found = [bootstrap_interval(sample, seed=k) for k, sample in enumerate(samples)]
        return float(np.mean([one.low <= 0 <= one.high for one in found]))

    assert coverage(20) > 0.90
    monkeypatch.setattr("analysis.stats.BOOTSTRAP_FROM", 5)
    assert coverage(5) < 0.88


@pytest.mark.parametrize("n", [2, 5, 30])
def test_p_value_is_the_tail_of_the_t_distribution(n):
    differences = np.random.default_rng(n).normal(size=n)
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(n))
    assert t_test(differences) == pytest.approx(2 * stats.t.sf(abs(t), n - 1))


def test_p_value_at_the_edges():
    assert math.isnan(t_test([0.1]))
    assert t_test([0.5, 0.5]) == 0.0
    assert t_test([0.9 - 0.6, 0.3, 0.5 - 0.2]) == 0.0  # equal up to rounding, without a warning
    assert t_test([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", [1, 3, 8])
def test_permutation_counts_all_sign_patterns(n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    sums = [sum(pattern) for pattern in itertools.product(*((v, -v) for v in values))]
    extreme = sum(abs(one) >= abs(values.sum()) - 1e-12 for one in sums)
    assert permutation_test(values) == pytest.approx(extreme / 2**n)
    assert permutation_test(np.abs(values)) == pytest.approx(2 / 2**n)


def test_permutation_of_many_is_drawn():
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    assert permutation_test(values) == pytest.approx(t_test(values), abs=0.02)
    assert math.isnan(permutation_test([]))


def test_permutation_is_possible_from_six_seeds_at_five_percent():
    assert [n for n in range(9) if can_permute(n, 0.05)] == [6, 7, 8]
    assert not can_permute(8, 0.05 / 8)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    missing = holm([0.02, math.nan, 0.5])
    assert missing[0] == pytest.approx(0.04)
    assert math.isnan(missing[1])
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


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


def test_one_standard_error_rule():
    best = [0.90, 0.92, 0.94]  # standard error 0.0115
    assert one_standard_error([[0.80], [0.91, 0.911], best]) == (1, 2)
    assert one_standard_error([[0.80], [0.905, 0.905], best]) == (2,)
    assert one_standard_error([[], [0.5], [0.6]]) == ()  # one seed has no standard error
    assert one_standard_error([[], []]) == ()
    assert one_standard_error([]) == ()
    # Two wrong images of 144 at one of three seeds, and one: exactly one standard error apart.
    two, one = (float(np.float32(right / 144)) for right in (142, 143))
    assert one_standard_error([[1.0, 1.0, two], [1.0, 1.0, one]]) == (0, 1)


def test_power_by_simulation_and_at_its_limits():
    samples = np.random.default_rng(0).normal(1.0, 1.0, (4000, 5))
    seen = np.mean([t_test(sample) <= 0.05 for sample in samples])
    assert power(5, 1.0, 1.0) == pytest.approx(seen, abs=0.03)
    assert power(5, 0.0, 1.0) == pytest.approx(0.05)
    assert power(5, -1.0, 1.0) == pytest.approx(power(5, 1.0, 1.0))
    assert power(1000, 5.0, 1.0) == pytest.approx(1.0)
    assert math.isnan(power(1, 1.0, 1.0))


def test_seeds_needed_are_the_fewest():
    # Textbook: an effect of one standard deviation needs 10 pairs for 80 % power, one half 34.
    assert seeds_needed(1.0, 1.0) == 10
    assert seeds_needed(-0.5, 1.0) == 34
    n = seeds_needed(0.7, 1.3, 0.9)
    assert n is not None
    assert power(n - 1, 0.7, 1.3) < 0.9 <= power(n, 0.7, 1.3)
    assert seeds_needed(0.001, 1.0) is None
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
