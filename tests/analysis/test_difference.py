"""The difference of two students over seeds and images, on records with a known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.difference import StudentTest, difference


def students(correct_nN: np.ndarray) -> dict[int, StudentTest]:
    return {seed: StudentTest(float(row.mean()), row) for seed, row in enumerate(correct_nN)}


def plain(*accuracies: float) -> dict[int, StudentTest]:
    return {seed: StudentTest(one) for seed, one in enumerate(accuracies)}


def test_without_images_it_is_the_paired_t_test() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.8, 0.01, (2, 5))
    found = difference(plain(*a), plain(*b))
    test = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        tuple(test.confidence_interval())
    )
    assert found.p_above() == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert found.p_below() == pytest.approx(1 - found.p_above())
    more = difference(plain(*draw.normal(0.8, 0.01, 25)), plain(*[0.79] * 25))
    assert more.freedom == 24  # the same t from 20 seeds on


def test_the_two_way_variance_is_that_of_the_obvious_formula() -> None:
    draw = np.random.default_rng(1)
    a, b = draw.random((2, 4, 50)) < 0.7
    layout = a.astype(float) - b
    n, images = layout.shape
    seed = images * sum((row.mean() - layout.mean()) ** 2 for row in layout) / (n - 1)
    image = n * sum((one.mean() - layout.mean()) ** 2 for one in layout.T) / (images - 1)
    rest = sum(
        (layout[s, i] - layout[s].mean() - layout[:, i].mean() + layout.mean()) ** 2
        for s in range(n)
        for i in range(images)
    ) / ((n - 1) * (images - 1))
    found = difference(students(a), students(b))
    variance = (max(seed, rest) + max(image - rest, 0)) / (n * images)
    assert found.error == pytest.approx(math.sqrt(variance), rel=1e-5)


def test_equal_differences_have_no_p_without_records_and_an_honest_one_with_them() -> None:
    equal = difference(plain(0.81, 0.82, 0.83), plain(0.80, 0.81, 0.82))
    assert math.isnan(equal.p)
    image = difference(plain(0.81, 0.82, 0.83), plain(0.80, 0.81, 0.82), 359)
    assert math.isnan(image.p)
    assert image.interval.low < 0 < image.interval.high  # no width of 0
    correct = np.ones((3, 359), dtype=bool)
    worse = correct.copy()
    worse[np.arange(3), np.arange(3)] = False  # one image at each seed, another one each time
    found = difference(students(correct), students(worse))
    assert found.by_seed == pytest.approx([1 / 359] * 3)
    assert found.p > 0.05
    same = difference(students(correct), students(correct))
    assert math.isnan(same.p)


def test_two_seeds_have_an_interval_and_no_p() -> None:
    found = difference(plain(0.80, 0.81), plain(0.70, 0.72))
    assert math.isfinite(found.interval.low)
    assert math.isnan(found.p)
    one = difference(plain(0.80), plain(0.70))
    assert one.interval.mean == pytest.approx(0.1)
    assert math.isnan(one.interval.low)
    assert difference({0: StudentTest(0.5)}, {1: StudentTest(0.5)}).interval.n == 0


def test_images_that_all_seeds_share_do_not_vanish_with_more_seeds() -> None:
    """All seeds of a are right on the same ten images more: as good as one seed."""
    draw = np.random.default_rng(2)
    hard = draw.random(400) < 0.2
    b = np.tile(~hard, (30, 1))
    a = b.copy()
    a[:, np.flatnonzero(hard)[:10]] = True
    a[:, np.flatnonzero(~hard)[:6]] = False
    found = difference(students(a), students(b))
    assert found.interval.mean == pytest.approx(0.01)
    assert found.interval.low < 0
    assert found.of_images > 0.009


def test_records_of_other_images_are_not_paired() -> None:
    a, b = np.ones((3, 50), dtype=bool), np.ones((3, 60), dtype=bool)
    assert difference(students(a), students(b)).error == 0.0  # of the accuracies alone


def test_equivalence_is_two_one_sided_tests() -> None:
    draw = np.random.default_rng(3)
    near = difference(plain(*draw.normal(0.8, 5e-4, 8)), plain(*draw.normal(0.8, 5e-4, 8)))
    assert near.p_within(0.005) < 0.001
    assert near.p_within(1e-5) > 0.05
    half = stats.t.ppf(0.95, near.freedom) * near.error  # the 90 % interval just fits
    margin = abs(near.interval.mean) + half
    assert near.p_within(margin) == pytest.approx(0.05)


@pytest.mark.thorough
@pytest.mark.parametrize("images", [359, 2000])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_covers_seeds_and_images(n: int, images: int) -> None:
    """Students of equal accuracy that err on different images and vary from seed to seed."""
    from benchmarks.coverage import CROSSED, coverage

    for world in CROSSED:
        assert coverage(world, n, images, 250, seed=0).with_records >= 0.90
