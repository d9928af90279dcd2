"""Intervals for few seeds: pure functions of numbers, in the unit of those numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean of n values and its interval; a bound that n cannot give is NaN."""

    n: int
    mean: float
    low: float
    high: float


ROUNDING = 1e-6  # of accuracies, which come from single precision: means this close are equal
NO_INTERVAL = Interval(0, math.nan, math.nan, math.nan)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and two-sided t-interval of independent values (Student, 1908).

    The t-interval is the primary one below 20 values, where the percentile bootstrap covers far
    less than its level. One value has a mean and no interval; no value has neither.

    Raises ValueError for values that are not finite (drop and count missing ones beforehand) and
    for a level outside 0..1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    sample = np.asarray(list(values), dtype=float)
    if not np.isfinite(sample).all():
        raise ValueError(f"values that are not finite: {sample[~np.isfinite(sample)].tolist()}")
    n = sample.size
    if n == 0:
        return NO_INTERVAL
    mean = float(sample.mean())
    if n == 1:
        return Interval(1, mean, math.nan, math.nan)
    # Not scipy's t.interval: it gives NaN where all values are equal, which is a width of 0.
    half = float(stats.t.ppf((1.0 + level) / 2.0, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(n, mean, mean - half, mean + half)


def share_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """`mean_interval` of shares such as accuracies, cut at 0 and 1, where no mean of shares can be,
    so that the coverage stays. Not for differences of shares."""
    found = mean_interval(values, level)
    if found.n < 2:
        return found
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def differences_by_seed(
    a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float]
) -> tuple[float, ...]:
    """a − b on the seeds that both have, by rising seed.

    Two runs of one seed share initial weights, data order, crops and mixed images, so their
    difference varies least.
    """
    common = sorted(a_by_seed.keys() & b_by_seed.keys())
    return tuple(a_by_seed[seed] - b_by_seed[seed] for seed in common)


def paired_difference(
    a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float], level: float = 0.95
) -> Interval:
    """t-interval of a − b on the seeds that both have; n = 0 where they share none.

    Raises ValueError as `mean_interval` does.
    """
    return mean_interval(differences_by_seed(a_by_seed, b_by_seed), level)


def correlation_interval(r: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of Pearson's correlation of n pairs by Fisher's z (1915); NaN below four pairs."""
    if n < 4:
        return math.nan, math.nan
    if abs(r) >= 1.0:
        return r, r
    half = float(stats.norm.ppf((1.0 + level) / 2.0)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


BOOTSTRAP_FROM = 20  # values: the percentile bootstrap covers 83 % at n = 5
RESAMPLES = 10_000


def bootstrap_interval(values: Sequence[float], level: float = 0.95, *, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval (Efron, 1979), of `RESAMPLES` resamples.

    Raises ValueError as `mean_interval` does, and for fewer than `BOOTSTRAP_FROM` values.
    """
    checked = mean_interval(values, level)
    if checked.n < BOOTSTRAP_FROM:
        raise ValueError(f"a bootstrap of {checked.n} values, fewer than {BOOTSTRAP_FROM}")
    found = stats.bootstrap(
        (list(values),),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(checked.n, checked.mean, float(found.low), float(found.high))


def primary_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of a claim: t below `BOOTSTRAP_FROM` values, else bootstrap."""
    enough = len(values) >= BOOTSTRAP_FROM
    return bootstrap_interval(values, level) if enough else mean_interval(values, level)


def t_test(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test that the mean difference is 0; NaN below n = 2.

    Differences that are equal up to rounding have p = 0, all 0 have p = 1.
    """
    sample = np.asarray(list(differences), dtype=float)
    if sample.size < 2:
        return math.nan
    if np.ptp(sample) <= 1e-12 * abs(sample[0]):
        return 0.0 if sample[0] else 1.0
    return float(stats.ttest_1samp(sample, 0.0).pvalue)


_EXACT = 16  # differences: 65,536 sign patterns; of more differences a random sample of them


def permutation_test(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip test (Fisher, 1935); NaN without a difference.

    Exact up to 16 differences, then of `RESAMPLES` patterns with the observed one among them.
    """
    n = len(differences)
    if n < 2:  # of one difference both signs are as extreme
        return 1.0 if n else math.nan
    found = stats.permutation_test(
        (list(differences),),
        np.sum,
        permutation_type="samples",
        n_resamples=2**n if n <= _EXACT else RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def can_permute(n: int, level: float) -> bool:
    """Whether the smallest p-value of n sign flips, 2/2ⁿ, can reach this level at all."""
    return n > 0 and 2.0 / 2.0**n <= level


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values (Holm, 1979) in the order given: reject where one is at most the level.

    NaN stays NaN and is no part of the family.
    """
    family = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(family):
        highest = max(highest, min(1.0, p * (len(family) - rank)))
        adjusted[index] = highest
    return tuple(adjusted)


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> tuple[bool, ...]:
    """Pareto front: for each point whether no other is at most as costly and at least as good.

    A point with a missing number is never on the front and dominates no other.
    """
    points = list(zip(costs, gains, strict=True))
    known = [point for point in points if all(map(math.isfinite, point))]
    return tuple(
        all(map(math.isfinite, point))
        and not any(
            other != point and other[0] <= point[0] and other[1] >= point[1] for other in known
        )
        for point in points
    )


def one_standard_error(values: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """One-standard-error rule: the settings, simplest first, within one standard error of the best.
    The rule takes the first of them.

    Each setting has the values of its seeds; the standard error is the best one's (Breiman et al.
    1984), of equally good ones the simplest one's. None of them where no setting has a value, or
    the best has one alone: it has no standard error.
    """
    means = [float(np.mean(v)) if len(v) else -math.inf for v in values]
    if not means or max(means) == -math.inf:
        return ()
    best = int(np.argmax(means))
    chosen = np.asarray(values[best], dtype=float)
    if chosen.size < 2:
        return ()
    least = means[best] - float(chosen.std(ddof=1)) / math.sqrt(chosen.size)
    return tuple(index for index, mean in enumerate(means) if mean >= least - ROUNDING)


def power(n: int, difference: float, deviation: float, level: float = 0.05) -> float:
    """Power of a two-sided paired t-test of n pairs for a true mean difference.

    `deviation` is the standard deviation of the differences within a pair; the test statistic is
    noncentral t. NaN below n = 2.
    """
    if n < 2:
        return math.nan
    if deviation == 0.0:
        return 1.0 if difference else level
    shift, critical = math.sqrt(n) * difference / deviation, stats.t.ppf(1 - level / 2, n - 1)
    upper = stats.nct.sf(critical, n - 1, abs(shift))
    lower = stats.nct.cdf(-critical, n - 1, abs(shift))
    # scipy gives NaN for a tail that is too small for it.
    return float(np.nan_to_num(upper, nan=1.0) + np.nan_to_num(lower, nan=0.0))


MOST_SEEDS = 1000


def seeds_needed(
    difference: float, deviation: float, wanted: float = 0.8, level: float = 0.05
) -> int | None:
    """Fewest pairs with which `power` reaches `wanted`; None for more than `MOST_SEEDS`.

    Raises ValueError for a difference of 0 and for a number that is not finite.
    """
    if not (math.isfinite(difference) and math.isfinite(deviation)) or difference == 0.0:
        raise ValueError(f"no number of seeds shows a difference of {difference} ± {deviation}")
    if power(MOST_SEEDS, difference, deviation, level) < wanted:
        return None
    low, high = 1, MOST_SEEDS  # power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        enough = middle >= 2 and power(middle, difference, deviation, level) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high
