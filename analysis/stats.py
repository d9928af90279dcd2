"""Intervals for few seeds: pure functions of numbers, in the unit of those numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special


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
    half = float(special.stdtrit(n - 1, (1.0 + level) / 2.0) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(n, mean, mean - half, mean + half)


def share_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """`mean_interval` of shares such as accuracies, cut at 0 and 1, where no mean of shares can be,
    so that the coverage stays. Not for differences of shares."""
    found = mean_interval(values, level)
    if found.n < 2:
        return found
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def deviation_of(found: Interval, level: float = 0.95) -> float:
    """The standard deviation of the values that a t-interval is of, one end of which may be cut;
    NaN of fewer than two."""
    if found.n < 2:
        return math.nan
    half = max(found.mean - found.low, found.high - found.mean)
    return float(half * math.sqrt(found.n) / special.stdtrit(found.n - 1, (1.0 + level) / 2.0))


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
    half = float(special.ndtri((1.0 + level) / 2.0)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> tuple[float, ...]:
    """Adjusted p-values (Holm, 1979) in the order given: reject where one is at most the level.

    A weight is a claim's share of the level; all are equal where none are given. NaN stays NaN and
    is no part of the family.
    """
    shares = [1.0] * len(p_values) if weights is None else weights
    family = [index for index, p in enumerate(p_values) if not math.isnan(p) and shares[index] > 0]
    family.sort(key=lambda index: p_values[index] / shares[index])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    left = sum(shares[index] for index in family)
    for index in family:
        highest = max(highest, min(1.0, p_values[index] / shares[index] * left))
        adjusted[index] = highest
        left -= shares[index]
    return tuple(adjusted)


def expected_maximum(count: int) -> float:
    """Mean of the largest of `count` standard normal values (Blom, 1958); 0 for one value."""
    return float(special.ndtri((count - 0.375) / (count + 0.25)))


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
    """One-standard-error rule (Breiman et al. 1984), paired: the indices of the settings that do
    not differ from the best by more than one standard error of their difference to it.

    Each setting has the values of the same seeds. A setting that is worse at every seed differs
    from the best. None of them where no setting has a value, or one seed alone: it has no standard
    error.
    """
    if not values or min(map(len, values)) < 2:
        return ()
    table = np.asarray(values, dtype=float)
    means = table.mean(1)
    # Of equally good settings the first is the best: which of them does not matter.
    behind = table[int(np.argmax(means))] - table
    errors = behind.std(axis=1, ddof=1) / math.sqrt(table.shape[1])
    ties = (behind.mean(1) <= errors + ROUNDING) & ~(behind > ROUNDING).all(1)
    return tuple(np.flatnonzero(ties | (means >= means.max() - ROUNDING)).tolist())


def power(
    n: int, difference: float, deviation: float, level: float = 0.05, fixed: float = 0.0
) -> float:
    """Power of a two-sided paired t-test of n pairs for a true mean difference.

    `deviation` is the standard deviation of the differences within a pair, `fixed` the part of the
    standard error of their mean that does not fall with n; the test statistic is noncentral t. NaN
    below n = 2.
    """
    if n < 2:
        return math.nan
    of_seeds = deviation**2 / n
    error = math.sqrt(of_seeds + fixed**2)
    if error == 0.0:
        return 1.0 if difference else level
    freedom = (n - 1) * (error**2 / of_seeds) ** 2 if of_seeds else 1e6
    freedom = min(freedom, 1e6)
    shift, critical = abs(difference) / error, special.stdtrit(freedom, 1 - level / 2)
    upper = 1 - special.nctdtr(freedom, shift, critical)
    lower = special.nctdtr(freedom, shift, -critical)
    # scipy gives NaN for a tail that is too small for it.
    return float(np.nan_to_num(upper, nan=1.0) + np.nan_to_num(lower, nan=0.0))


MOST_SEEDS = 1000


def seeds_needed(
    difference: float,
    deviation: float,
    wanted: float = 0.8,
    level: float = 0.05,
    fixed: float = 0.0,
) -> int | None:
    """Fewest pairs with which `power` reaches `wanted`; None for more than `MOST_SEEDS`.

    Raises ValueError for a difference of 0 and for a number that is not finite.
    """
    if not (math.isfinite(difference) and math.isfinite(deviation)) or difference == 0.0:
        raise ValueError(f"no number of seeds shows a difference of {difference} ± {deviation}")

    def enough(n: int) -> bool:
        return n >= 2 and power(n, difference, deviation, level, fixed) >= wanted

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def deviation_interval(deviation: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a standard deviation of n values by the chi-square distribution; NaN below 2."""
    if n < 2:
        return math.nan, math.nan
    tails = ((1 + level) / 2, (1 - level) / 2)
    low, high = (deviation * math.sqrt((n - 1) / special.chdtri(n - 1, 1 - t)) for t in tails)
    return float(low), float(high)
