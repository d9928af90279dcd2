"""The difference of two students in test accuracy: estimate, interval and p.

One model for every part of a report. Seeds and test images are both samples, and crossed: every
seed's students are tested on the same images. The variance of the mean difference over n seeds and
N images is that of a two-way layout with random rows and columns,

    (MS_seed + max(MS_image − MS_rest, 0)) / (n N),

with Satterthwaite's degrees of freedom (readers and cases of Obuchowski & Rockette 1995; Hillis
2007). MS_seed estimates MS_rest and more, so that it is never taken as less: two or three seeds
whose accuracies are equal by chance have no interval of width 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from analysis.stats import NO_INTERVAL, Interval

DECIDES_FROM = 3  # seeds: of two no word is said, whatever their interval
LEVEL = 0.95
# Of runs without a record of each image the two variances are taken from the accuracy p: per image
# at least _REST p(1 − p) is of single students, _IMAGE p(1 − p) is common to all seeds. Both are
# less than what was measured with records (benchmarks/coverage.py), so that seeds that vary
# by more decide alone.
_REST, _IMAGE = 0.5, 0.1
_MANY = 1e6  # degrees of freedom that are as good as known variance


class StudentTest(NamedTuple):
    """A student on the test split: accuracy, and which images were classified correctly [N]."""

    accuracy: float
    correct: np.ndarray | None = None


class Difference(NamedTuple):
    """The mean of a − b over the seeds that both have; a fraction. `error` is its standard error
    and `freedom` the degrees of freedom of it; `p` is two-sided against 0, NaN where nothing may be
    decided: fewer than `DECIDES_FROM` seeds, or no variance. `of_images` is the part of `error`
    that more seeds do not reduce; `deviation` that of one seed."""

    by_seed: tuple[float, ...] = ()
    interval: Interval = NO_INTERVAL
    p: float = math.nan
    error: float = math.nan
    freedom: float = math.nan
    of_images: float = 0.0
    deviation: float = math.nan

    @property
    def decides(self) -> bool:
        """Whether it has a p-value."""
        return not math.isnan(self.p)

    def at(self, level: float) -> Interval:
        """The interval at another level."""
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        mean = self.interval.mean
        return Interval(self.interval.n, mean, mean - half, mean + half)

    @property
    def statistic(self) -> float:
        """The mean in standard errors."""
        return self.interval.mean / self.error if self.decides else math.nan

    def p_above(self, margin: float = 0.0) -> float:
        """One-sided p-value that the difference is above `margin`."""
        if not self.decides:
            return math.nan
        return float(special.stdtr(self.freedom, (margin - self.interval.mean) / self.error))

    def p_below(self, margin: float = 0.0) -> float:
        """One-sided p-value that the difference is below `margin`."""
        if not self.decides:
            return math.nan
        return float(special.stdtr(self.freedom, (self.interval.mean - margin) / self.error))

    def p_within(self, margin: float) -> float:
        """p that the difference is within ±`margin`: two one-sided tests (Schuirmann 1987)."""
        if not self.decides:
            return math.nan
        return max(self.p_above(-margin), self.p_below(margin))


NO_DIFFERENCE = Difference()


def difference(
    a: Mapping[int, StudentTest], b: Mapping[int, StudentTest], images: int | None = None
) -> Difference:
    """a − b, paired by seed. `images`: the size of the test split, where it is known; it is needed
    where a student has no record."""
    seeds = sorted(a.keys() & b.keys())
    pairs = [(a[seed], b[seed]) for seed in seeds]
    by_seed = tuple(one.accuracy - other.accuracy for one, other in pairs)
    n = len(by_seed)
    if n < 2:
        mean = by_seed[0] if n else math.nan
        return Difference(by_seed, Interval(n, mean, math.nan, math.nan))
    layout = _layout(pairs)
    if layout is not None:
        of_seeds, of_images = _variances(layout)
    else:
        of_seeds, of_images = _assumed(pairs, by_seed, images)
    mean, variance = float(np.mean(by_seed)), of_seeds + of_images
    error = math.sqrt(variance)
    freedom = (n - 1) * (variance / of_seeds) ** 2 if of_seeds > 0 else _MANY
    none = error == 0.0 or (layout is None and np.ptp(by_seed) <= 1e-9)
    p = math.nan
    if n >= DECIDES_FROM and not none:
        p = float(2 * special.stdtr(freedom, -abs(mean) / error))
    found = Difference(
        by_seed,
        Interval(n, mean, math.nan, math.nan),
        p,
        error,
        freedom,
        math.sqrt(of_images),
        math.sqrt(of_seeds * n),
    )
    return found._replace(interval=found.at(LEVEL))


def _layout(pairs: Sequence[tuple[StudentTest, StudentTest]]) -> np.ndarray | None:
    """−1, 0, 1 by seed and image [n, N]; None where a student has no record, or of other images."""
    records = [one.correct for pair in pairs for one in pair]
    known = [one for one in records if one is not None]
    if len(known) < len(records) or len({len(one) for one in known}) != 1:
        return None
    return np.stack(known[::2]).astype(np.float32) - np.stack(known[1::2]).astype(np.float32)


def _variances(layout_nN: np.ndarray) -> tuple[float, float]:
    """(variance of the mean from seeds, from images) of a two-way layout."""
    n, images = layout_nN.shape
    rows, columns = layout_nN.mean(1, dtype=float), layout_nN.mean(0, dtype=float)
    mean = rows.mean()
    rest = layout_nN - rows[:, None] - columns + mean
    ms_rest = float(np.sum(rest * rest, dtype=float)) / ((n - 1) * (images - 1))
    ms_seed, ms_image = images * rows.var(ddof=1), n * columns.var(ddof=1)
    of_images = max(float(ms_image) - ms_rest, 0.0)
    return max(float(ms_seed), ms_rest) / (n * images), of_images / (n * images)


def _assumed(
    pairs: Sequence[tuple[StudentTest, StudentTest]], by_seed: Sequence[float], images: int | None
) -> tuple[float, float]:
    """The same without records: the variance of the seeds, but no less than the images leave."""
    n, variance = len(by_seed), float(np.var(by_seed, ddof=1))
    if images is None:
        return variance / n, 0.0
    spread = float(np.mean([t.accuracy * (1 - t.accuracy) for pair in pairs for t in pair]))
    return max(variance, _REST * spread / images) / n, _IMAGE * spread / images
