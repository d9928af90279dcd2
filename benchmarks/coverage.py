"""`python -m benchmarks.coverage [STORES]`: are the intervals and the words of reports true?

Two tables over planted stores. Coverage: how often the 95 % interval of a difference holds the true
one, over seeds × images, with a record of each image, without one, and by the t-interval over seeds
alone. Words: truth × what a report of a ladder says, over kinds of stores without an effect and
with one; of the first the share of reports with a false word, of the second the share that find it,
next to the power of theory.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.claims import Claim, Comparison, claims_of
from analysis.difference import StudentTest, difference
from analysis.selection.declared import Declared

SEEDS, IMAGES = (2, 3, 5, 10), (359, 2000, 10_000)
RUNGS = ("CE", "KD", "L0", "L1", "L2", "L3", "L4")


class World(NamedTuple):
    """How students err, in logits: `base` of a mean image, `spread` of the images, `own`: of a
    rung's own strengths on images, `seed`: of single students."""

    name: str
    base: float
    spread: float
    own: float = 0.0
    seed: float = 0.0


CROSSED = (
    World("98 %", 6.0, 3.0),
    World("98 %, own images", 6.0, 3.0, own=0.7),
    World("85 %, seeds vary", 3.0, 2.5, seed=0.1),
    World("85 %, own images, seeds vary", 3.0, 2.5, own=0.7, seed=0.1),
)


def students(world: World, rungs: int, n: int, images: int, draw: np.random.Generator):
    """Which images each student classifies correctly [rungs, seeds, images]. Rungs are equal in
    expectation over images and seeds."""
    image = world.base + world.spread * draw.standard_normal(images)
    own = world.own * draw.standard_normal((rungs, 1, images))
    seed = world.seed * draw.standard_normal((rungs, n, 1))
    chance = 1 / (1 + np.exp(-(image + own + seed)))
    return draw.random((rungs, n, images)) < chance


class Coverage(NamedTuple):
    """Shares of intervals that hold the true difference, 0, and their mean width in points."""

    with_records: float
    without: float
    seeds_alone: float
    width: float


def coverage(world: World, n: int, images: int, repeats: int, seed: int = 0) -> Coverage:
    """Coverage of the difference of two rungs."""
    draw = np.random.default_rng(seed)
    held, widths = [], []
    for _ in range(repeats):
        a, b = students(world, 2, n, images, draw)
        full = [{s: StudentTest(float(r.mean()), r) for s, r in enumerate(of)} for of in (a, b)]
        plain = [{s: one._replace(correct=None) for s, one in of.items()} for of in full]
        found = (
            difference(*full).interval,
            difference(*plain, images).interval,
            difference(*plain).interval,
        )
        held.append([one.low <= 0 <= one.high for one in found])
        widths.append(found[0].high - found[0].low)
    shares = np.mean(held, axis=0)
    return Coverage(*map(float, shares), width=100 * float(np.mean(widths)))


# Words -----------------------------------------------------------------------------------------

Noise = Callable[[tuple[int, int], np.random.Generator], np.ndarray]


class Kind(NamedTuple):
    """A kind of store: seeds, images (None: accuracies that are no shares), noise of a student in
    points, and effects of rungs in points."""

    name: str
    n: int
    images: int | None
    noise: Noise
    effects: dict[str, float] = {}  # noqa: RUF012 - never changed
    records: bool = False
    base: float = 0.85


def normal(sd: float) -> Noise:
    """Equal normal noise."""
    return lambda size, draw: draw.normal(0, sd, size)


def outlier(sd: float) -> Noise:
    """One seed of a rung is five standard deviations worse."""

    def noise(size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
        found = draw.normal(0, sd, size)
        found[draw.integers(size[0]), draw.integers(size[1])] -= 5 * sd
        return found

    return noise


def heavy(sd: float) -> Noise:
    """Student's t with 2 degrees of freedom."""
    return lambda size, draw: sd * draw.standard_t(2, size)


def accuracies(kind: Kind, draw: np.random.Generator) -> np.ndarray:
    """Test accuracies [rungs, seeds] of a store: seeds have a level in common."""
    shared = draw.normal(0, 0.5, (1, kind.n))
    effects = np.array([[kind.effects.get(rung, 0.0)] for rung in RUNGS])
    noise = kind.noise((len(RUNGS), kind.n), draw)
    found = np.clip(kind.base + (shared + effects + noise) / 100, 0, 1)
    return found if kind.images is None else np.round(found * kind.images) / kind.images


def planted(kind: Kind, draw: np.random.Generator) -> tuple[Claim, ...]:
    """The claims of one store."""
    if kind.records:
        assert kind.images is not None
        bits = students(CROSSED[0], len(RUNGS), kind.n, kind.images, draw)
        rows = [[StudentTest(float(one.mean()), one) for one in of] for of in bits]
    else:
        rows = [[StudentTest(float(one)) for one in of] for of in accuracies(kind, draw)]
    tested = {rung: dict(enumerate(of)) for rung, of in zip(RUNGS, rows, strict=True)}

    def compare(a: str, b: str) -> Comparison:
        return Comparison(a, b, difference(tested[a], tested[b], kind.images))

    return claims_of("toy", RUNGS, compare, Declared("L4"), {})


class Said(NamedTuple):
    """Of reports: the share with a false word, the share that find the effect of L4, theory's."""

    false: float
    found: float
    theory: float


def said(kind: Kind, stores: int, seed: int = 0) -> Said:
    """What reports say of stores of a kind."""
    draw = np.random.default_rng(seed)
    false, found, level = 0, 0, 0.0
    for _ in range(stores):
        claims = planted(kind, draw)
        false += any(_is_false(claim, kind) for claim in claims)
        first = claims[0]
        found += first.significant and first.better
        level = 0.05 * first.share
    theory = _theory(kind, level) if kind.effects.get("L4", 0.0) and kind.n > 2 else np.nan
    return Said(false / stores, found / stores, theory)


def _theory(kind: Kind, level: float, repeats: int = 20_000) -> float:
    """Power of the t-tests that L4 is better than CE and than KD, each at this level."""
    draw, effect = np.random.default_rng(1), kind.effects
    noise = kind.noise((3 * repeats, kind.n), draw).reshape(3, repeats, kind.n)
    passed = np.ones(repeats, dtype=bool)
    for control, of in (("CE", noise[1]), ("KD", noise[2])):
        gain = effect["L4"] - effect.get(control, 0.0) + noise[0] - of
        passed &= stats.ttest_1samp(gain, 0.0, axis=1, alternative="greater").pvalue <= level / 2
    return float(passed.mean())


def _is_false(claim: Claim, kind: Kind) -> bool:
    """Whether a report says better or worse where the truth is otherwise."""
    if not claim.significant:
        return False
    gains = [
        kind.effects.get(claim.rung, 0.0) - kind.effects.get(c.reference, 0.0)
        for c in claim.decided
    ]
    return not (min(gains) > 0 if claim.better else min(gains) < 0)


def kinds() -> tuple[Kind, ...]:
    """At least 30 kinds of stores."""
    none = [
        Kind(f"no effect, n = {n}, {images} images, {name}", n, images, noise, base=base)
        for n in SEEDS
        for images, base in ((359, 0.98), (2000, 0.9), (10_000, 0.85))
        for name, noise in (("sd 0.3", normal(0.3)), ("one outlier", outlier(0.2)))
    ]
    none += [Kind(f"no effect, n = {n}, heavy tails", n, None, heavy(0.3)) for n in (3, 5, 10)]
    none += [
        Kind(f"no effect, n = {n}, 359 images, records", n, 359, normal(0), records=True)
        for n in (2, 3, 5)
    ]
    tiny = [
        Kind(f"no effect, n = {n}, 359 images, sd 0.1", n, 359, normal(0.1), base=0.98)
        for n in SEEDS
    ]
    some = [
        Kind(f"L4 +{size}, n = {n}, sd 0.3", n, None, normal(0.3), {"L4": size})
        for n in (3, 5, 10)
        for size in (0.5, 1.0, 2.0)
    ]
    some += [
        Kind("L4 +1, 10,000 images, n = 5, sd 0.3", 5, 10_000, normal(0.3), {"L4": 1.0}),
        Kind("L4 +1, KD +1, n = 5, sd 0.3", 5, None, normal(0.3), {"L4": 1.0, "KD": 1.0}),
        Kind("L4 −2, n = 5, sd 0.3", 5, None, normal(0.3), {"L4": -2.0}),
        Kind(
            "all +2 but CE, n = 5, sd 0.3", 5, None, normal(0.3), {rung: 2.0 for rung in RUNGS[1:]}
        ),
    ]
    return (*none, *tiny, *some)


def main(words: Sequence[str]) -> None:
    """Print both tables."""
    stores = int(words[0]) if words else 200
    print(f"{'coverage of the difference, %':30}  n  images  records  without  seeds alone  width")
    for world in CROSSED:
        for n in SEEDS:
            for images in IMAGES:
                found = coverage(world, n, images, stores)
                shares = (found.with_records, found.without, found.seeds_alone)
                cells = "  ".join(f"{100 * one:7.1f}" for one in shares)
                print(f"{world.name:30} {n:2} {images:7,}  {cells}  {found.width:9.2f}", flush=True)
    error = 100 * float(stats.norm.ppf(0.975)) * (0.05 * 0.95 / stores) ** 0.5
    print(f"\n{stores} stores each; what is truly 5 % is seen within ±{error:.1f}")
    print(f"{'truth':52}  false words, %  L4 better, %  theory, %")
    for kind in kinds():
        one = said(kind, stores)
        theory = "–" if one.theory != one.theory else f"{100 * one.theory:.0f}"
        print(
            f"{kind.name:52}  {100 * one.false:14.1f}  {100 * one.found:12.0f}  {theory:>9}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
