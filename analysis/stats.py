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


NO_INTERVAL = Interval(0, math.nan, math.nan, math.nan)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and two-sided t-interval of independent values (Student, 1908).

    The t-interval is the primary one below 20 values, where the percentile bootstrap covers far
    less than it says. One value has a mean and no interval; no value has neither.

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


def paired_difference(
    a_by_seed: Mapping[int, float], b_by_seed: Mapping[int, float], level: float = 0.95
) -> Interval:
    """t-interval of a − b on the seeds that both have; n = 0 where they share none.

    Two runs of one seed share first weights, data order, crops and mixes, so the difference
    within a seed is what varies least. Raises ValueError as `mean_interval` does.
    """
    common = sorted(a_by_seed.keys() & b_by_seed.keys())
    return mean_interval([a_by_seed[seed] - b_by_seed[seed] for seed in common], level)
