"""What is claimed of a bench: one family of claims, false in at most 5 % of reports.

Is a rung better than each control? Does each step of the ladder, and each rung over its placebo,
differ? Accuracies are fractions. Differences are paired by seed.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from analysis import tags
from analysis.difference import NO_DIFFERENCE, Difference, difference
from analysis.ladder_numbers import (
    CONTROLS,
    RUNG_ORDER,
    STACK,
    best_control,
    images_of,
    logged_by_seed,
    paired_ratio,
    rung_order,
    tested_by_seed,
)
from analysis.runs import column
from analysis.selection.attempts import Attempts, attempts
from analysis.selection.bench_runs import BenchRuns
from analysis.selection.configurations import ALONE, RUNG_COLUMNS
from analysis.selection.declared import Declared, declared
from analysis.selection.likeness import facts_by_rung, unlike
from analysis.stats import Interval, deviation_interval, holm, seeds_needed
from trainers import metrics

PLACEBO = "_null"  # after a rung, in the names of its placebos
VISIBLE = 0.005  # the difference that the column of seeds needed is about
LEVEL = 0.05  # of all claims of a report together
_DECLARED, _RUNGS, _CHECKS = 2.0, 3.0, 1.0  # shares of the level: primary, rungs, steps and checks


class Comparison(NamedTuple):
    """A rung less a reference. `unlike`: what differs beside the method, so that nothing is
    compared; `twin`: whether both have the same weights at every seed; `times`: the reference's
    time, over the seeds that both have."""

    rung: str
    reference: str
    difference: Difference = NO_DIFFERENCE
    unlike: tuple[str, ...] = ()
    twin: bool = False
    times: float = math.nan


class Claim(NamedTuple):
    """A rung less its references: the controls (`of_control`), or the one rung that it is a step
    from or a check of.

    Better is better than *each* reference (intersection–union: no control has to be chosen), worse
    is worse than one of them (Bonferroni over them). `p` is two-sided, `adjusted` after Holm over
    the claims of the report; `share` is the claim's part of the level. The comparison with the
    least favourable reference is the one that is shown.
    """

    bench: str
    rung: str
    comparisons: tuple[Comparison, ...]
    of_control: bool
    primary: bool = False
    aside: tuple[Comparison, ...] = ()  # with controls that cannot decide, where another one can
    attrition: Attempts | None = None  # where more seeds of the rung than of the controls failed
    p: float = math.nan
    adjusted: float = math.nan
    share: float = 0.0

    @property
    def shown(self) -> Comparison:
        """The comparison with the least favourable reference; of several that decide nothing the
        one with the most seeds."""
        decided = [c for c in self.comparisons if c.difference.decides]
        if decided:
            return min(decided, key=lambda c: c.difference.statistic)
        return max(self.comparisons, key=lambda c: c.difference.interval.n)

    @property
    def decided(self) -> tuple[Comparison, ...]:
        """The comparisons that the claim is about."""
        return tuple(c for c in self.comparisons if c.difference.decides)

    @property
    def reference(self) -> str:
        return self.shown.reference

    @property
    def interval(self) -> Interval:
        return self.shown.difference.interval

    @property
    def differences(self) -> tuple[float, ...]:
        return self.shown.difference.by_seed

    @property
    def times(self) -> float:
        return self.shown.times

    @property
    def twin(self) -> bool:
        return any(c.twin for c in self.comparisons)

    @property
    def significant(self) -> bool:
        """Whether it is better or worse at the 5 % level of the report. Of a rung that lost more
        seeds than the controls did nothing good is said: the survivors may be the best."""
        survived = self.attrition is None or not self.better
        return self.adjusted <= LEVEL and survived and not self.twin

    @property
    def better(self) -> bool:
        """Whether it is above each reference."""
        return all(c.difference.interval.mean > 0 for c in self.decided)

    def within(self, margin: float) -> bool:
        """Whether it is equivalent to the reference that is shown, at the claim's part of the
        level."""
        found = self.shown.difference.p_within(margin)
        return found * max(1, len(self.decided)) <= LEVEL * self.share

    def needed(self) -> tuple[int | None, int | None, int | None]:
        """Seeds that would show `VISIBLE` with 80 % power at the claim's part of the level, and the
        bounds of that number; None where they are not known, or are too many."""
        found = self.shown.difference
        if found.interval.n < 2 or not found.deviation > 0:
            return None, None, None
        level = LEVEL * (self.share or 1.0)
        bounds = deviation_interval(found.deviation, found.interval.n)
        low, mid, high = (
            seeds_needed(VISIBLE, one, level=level, fixed=found.of_images)
            for one in (bounds[0], found.deviation, bounds[1])
        )
        return mid, low, high


class Family(NamedTuple):
    """The claims of a bench; the level is shared with `benches` − 1 other ones of the report."""

    bench: str
    claims: tuple[Claim, ...]
    controls: tuple[str, ...]
    control: str  # the best of them on validation; "": none
    primary: Declared
    benches: int
    attempts: Mapping[str, Attempts]
    to_control: tuple[Comparison, ...] = ()  # of every rung with the best control, for figures

    def of(self, rung: str, reference: str | None = None) -> Claim | None:
        """The claim of a rung against the controls, or against this rung."""
        for claim in self.claims:
            if claim.rung != rung:
                continue
            if claim.of_control if reference is None else claim.reference == reference:
                return claim
        return None

    @property
    def size(self) -> int:
        """Over how many claims Holm corrects: those that have a p-value."""
        return sum(not math.isnan(claim.p) for claim in self.claims)


Compare = Callable[[str, str], Comparison]


def family(bench_runs: BenchRuns, kept: pd.DataFrame | None = None) -> Family:
    """All claims of a bench, the primary one first: of each rung and method with the controls, then
    of each rung of the ladder with the one before it that ran, of each rung with its placebo and
    with the control that was given its time, and of the controls with CE."""
    kept = bench_runs.kept if kept is None else kept
    bench, benches = bench_runs.bench, bench_runs.benches
    rungs = rung_order(column(kept, RUNG_COLUMNS[1]).dropna().unique())
    primary, tried = declared(bench_runs), attempts(bench_runs.runs, kept)
    compare = _comparer(kept, bench, rungs)
    rung, matched = column(kept, RUNG_COLUMNS[1]), column(kept, f"tags.{tags.MATCHED_TO}")
    of_time = [(a, b) for a, b in dict.fromkeys(zip(matched, rung, strict=True)) if a in rungs]
    found = claims_of(bench, rungs, compare, primary, tried, of_time, benches)
    control = best_control(kept, bench)
    to_control = tuple(compare(rung, control) for rung in rungs if control not in ("", rung))
    there = tuple(name for name in CONTROLS if name in rungs)
    return Family(bench, found, there, control, primary, benches, tried, to_control)


def claims_of(
    bench: str,
    rungs: Sequence[str],
    compare: Compare,
    primary: Declared,
    tried: Mapping[str, Attempts],
    of_time: Sequence[tuple[str, str]] = (),
    benches: int = 1,
) -> tuple[Claim, ...]:
    """The claims of `family`, of rungs that `compare` compares; `of_time`: rungs with the control
    that was given their time."""
    there = [name for name in CONTROLS if name in rungs]
    of_controls = [
        Claim(
            bench,
            rung,
            tuple(
                compare(rung, control)
                for control in (primary.controls_of(rung) or there)
                if control in rungs and control != rung
            ),
            of_control=True,
            primary=rung == primary.rung,
            attrition=tried[rung].against(tried[c] for c in there) if rung in tried else None,
        )
        for rung in rungs
        if rung not in (*CONTROLS, *ALONE) and PLACEBO not in rung
    ]
    of_controls = [_counted(claim) for claim in of_controls if claim.comparisons]
    pairs = [*_checks(rungs), *_over_stack(rungs, primary), *of_time]
    checks = [Claim(bench, a, (compare(a, b),), of_control=False) for a, b in pairs]
    found = sorted(of_controls, key=lambda claim: not claim.primary) + checks
    return _corrected(found, primary.beforehand, benches)


def _comparer(kept: pd.DataFrame, bench: str, rungs: Sequence[str]) -> Compare:
    """The comparison of two rungs, of what is read once."""
    facts, images = facts_by_rung(kept, bench), images_of(kept)
    tested = {rung: tested_by_seed(kept, bench, rung) for rung in rungs}
    seconds = {rung: logged_by_seed(kept, bench, rung, metrics.RUN_SECONDS) for rung in rungs}
    digest = f"{metrics.STATE}student"
    weights = {rung: logged_by_seed(kept, bench, rung, digest) for rung in rungs}

    def compare(a: str, b: str) -> Comparison:
        if reasons := unlike(facts[a], facts[b]):
            return Comparison(a, b, unlike=reasons)
        common = tested[a].keys() & tested[b].keys()
        twin = len(common) > 1 and all(weights[a][s] == weights[b][s] for s in common)
        times = paired_ratio(seconds[a], seconds[b])
        return Comparison(a, b, difference(tested[a], tested[b], images), (), twin, times)

    return compare


def _counted(claim: Claim) -> Claim:
    """Without the controls that cannot decide, where another one can: one seed of a control, or a
    control of another budget, takes no claim away that the others decide."""
    if not claim.decided:
        return claim
    aside = tuple(c for c in claim.comparisons if not c.difference.decides)
    return claim._replace(comparisons=claim.decided, aside=aside)


def _checks(rungs: Sequence[str]) -> list[tuple[str, str]]:
    ladder = [rung for rung in RUNG_ORDER if rung in rungs and rung not in CONTROLS]
    steps = [(b, a) for a, b in itertools.pairwise(ladder)]
    placebos = [(a, b) for a in rungs for b in rungs if b.startswith(a + PLACEBO)]
    controls = [(c, "CE") for c in CONTROLS if c in rungs and c != "CE" and "CE" in rungs]
    return [*steps, *placebos, *controls]


def _over_stack(rungs: Sequence[str], primary: Declared) -> list[tuple[str, str]]:
    """A learned fusion less the plain one, where the primary claim leaves it out of its controls:
    otherwise it is one of those that each rung has to beat."""
    named = primary.controls_of(primary.rung)
    apart = STACK in rungs and primary.rung in rungs and bool(named) and STACK not in named
    return [(primary.rung, STACK)] if apart else []


def _p(claim: Claim) -> float:
    """Two-sided p of a claim: better than each reference, or worse than one of them."""
    found = [c.difference for c in claim.decided]
    if not found:
        return math.nan
    better = max(one.p_above() for one in found)
    worse = min(1.0, len(found) * min(one.p_below() for one in found))
    return min(1.0, 2.0 * min(better, worse))


def _corrected(found: Sequence[Claim], beforehand: bool, benches: int) -> tuple[Claim, ...]:
    """With p-values after Holm. Of the level a primary claim that was fixed beforehand has half;
    of the rest the claims of rungs have three quarters, steps and checks one."""
    p = [_p(claim) for claim in found]
    groups = [_group(claim, beforehand) for claim in found]
    decided = [g for g, one in zip(groups, p, strict=True) if not math.isnan(one)]
    total = sum(share for share, _ in set(decided))
    weights = [
        share / total / decided.count((share, name)) if (share, name) in decided else 0.0
        for share, name in groups
    ]
    adjusted = [one * benches for one in holm(p, weights)]
    return tuple(
        claim._replace(
            p=one, adjusted=after if math.isnan(after) else min(1.0, after), share=weight / benches
        )
        for claim, one, after, weight in zip(found, p, adjusted, weights, strict=True)
    )


def _group(claim: Claim, beforehand: bool) -> tuple[float, str]:
    """The share of a claim's group, and its name."""
    if claim.primary and beforehand:
        return _DECLARED, "primary"
    if claim.of_control:
        return (_RUNGS / 2 if beforehand else _RUNGS), "rungs"
    return (_CHECKS / 2 if beforehand else _CHECKS), "checks"
