"""The claims of a bench in words: no sentence says more than its test."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.cells import accuracy_text, in_percent, percent, points
from analysis.claims import LEVEL, Claim, Family
from analysis.difference import DECIDES_FROM
from analysis.ladder_numbers import LadderTable, TeacherRow, label_of
from analysis.runs import column
from analysis.selection.by_seed import logged_by_seed
from analysis.selection.configurations import ALONE, RUNG_COLUMNS
from analysis.stats import expected_maximum, mean_interval
from analysis.words import counted
from trainers import metrics


def sentence(claim: Claim) -> str:
    """The claim in words; "better" and "worse" only where the level of the report allows it."""
    shown = claim.shown
    start, found = f"{label_of(claim.rung)} − {label_of(shown.reference)}:", claim.interval
    if shown.unlike:
        return f"{start} not compared; what differs: {'; '.join(shown.unlike)}."
    if found.n == 0:
        return f"{start} no seed in common: nothing to compare."
    time = "" if math.isnan(shown.times) else f", {shown.times:.2f} × the time"
    mean = f"{start} {points(found.mean)} points"
    if found.n == 1:
        return f"{mean}{time}; one seed: no interval, no conclusion."
    if claim.twin:
        return f"{start} the same weights at each of {found.n} seeds: they are one experiment."
    p = f", {p_is(claim.p)}, after Holm {p_value(claim.adjusted)}" * shown.difference.decides
    return (
        f"{mean}, {in_percent(0.95)} interval {points(found.low)} to {points(found.high)}, "
        f"n = {found.n}{p}{time}: {conclusion(claim)}."
    )


def conclusion(claim: Claim) -> str:
    """What may be said of a claim that has an interval."""
    found = claim.shown.difference
    if found.interval.n < DECIDES_FROM:
        return "two seeds: no conclusion"
    if not found.decides:
        return "equal differences at all seeds have no variance: no conclusion"
    if claim.significant:
        names = [label_of(c.reference) for c in claim.decided]
        one = f"each of {listed(names)}" if len(names) > 1 else names[0]
        better = f"better than {one}"
        return better if claim.better else f"worse than {label_of(claim.reference)}"
    if claim.adjusted <= LEVEL and claim.attrition is not None:
        return "no conclusion, as many of its seeds failed"
    return "not significant"


def listed(names: Sequence[str]) -> str:
    """`CE, KD and kd (method)`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def primary_sentences(found: Family) -> tuple[str, ...]:
    """The primary claim, when it was made, and what of its declaration was not kept."""
    primary, claim = found.primary, found.of(found.primary.rung)
    against = primary.controls_of(primary.rung) or found.controls
    if claim is None or not claim.primary:
        if primary.at is None and primary.beforehand:
            return (f"No primary claim was declared, and {primary.rung}, the default, has no run.",)
        names = listed([label_of(one) for one in against]) or "a control"
        return (f"Primary claim: {primary.rung} against {names}: no run of {primary.rung}.",)
    texts = [f"Primary claim: {sentence(claim)}", f"The primary claim was {primary.when}."]
    if absent := sorted(set(primary.seeds) - _seeds(found, primary.rung)):
        texts.append(
            f"Declared seeds of {primary.rung} that have not finished: "
            f"{', '.join(map(str, absent))}."
        )
    if more := sorted(_seeds(found, primary.rung) - set(primary.seeds)) if primary.seeds else []:
        texts.append(f"Seeds that were not declared: {', '.join(map(str, more))}.")
    return tuple(texts)


def _seeds(found: Family, rung: str) -> frozenset[int]:
    return found.attempts[rung].finished if rung in found.attempts else frozenset()


def control_sentence(found: Family) -> str:
    """The controls, and which of them figures show the differences to."""
    names = [label_of(one) for one in found.controls]
    if len(names) == 1:
        return f"Control: {names[0]}."
    return (
        f"Controls: {listed(names)}; better is better than each of them that can decide. The best "
        f"on validation: {label_of(found.control)}."
    )


def controls_aside(found: Family) -> tuple[str, ...]:
    """The controls that some rungs are not compared with, and why."""
    rungs: dict[tuple[str, str], list[str]] = {}
    for claim in found.claims:
        for one in claim.aside:
            why = f"fewer than {DECIDES_FROM} seeds in common, or no variance"
            if one.unlike:
                why = f"what differs: {'; '.join(one.unlike)}"
            rungs.setdefault((one.reference, why), []).append(label_of(claim.rung))
    return tuple(
        f"Not compared with {label_of(control)}: {', '.join(names)} ({why})."
        for (control, why), names in rungs.items()
    )


def family_sentence(found: Family) -> str:
    """Over what the level is shared."""
    shared = f", and each of {found.benches} benches has its part of the level" * (
        found.benches > 1
    )
    half = "; the primary one has half of the level" * found.primary.beforehand
    return f"One family of {counted(found.size, 'claim')}, 5 % in all (Holm){half}{shared}."


def sentences(found: Family) -> tuple[str, ...]:
    """The summary, and over what the level is shared; the table of claims has the others."""
    size = (family_sentence(found),) * bool(found.controls and found.size)
    return tuple(dict.fromkeys((*summary(found), *size)))


def summary(found: Family) -> tuple[str, ...]:
    """The primary claim, every significant difference, and the rungs without one."""
    others = [c for c in found.claims if not c.primary]
    if not found.controls:
        return tuple(sentence(c) for c in others if (c.of_control or c.significant) and not c.twin)
    texts = [sentence(c) for c in others if c.significant and not c.twin]
    silent = [c for c in others if c.of_control and not c.significant and not c.twin]
    tried = [c for c in silent if c.shown.difference.decides]
    for control in found.controls:
        if rungs := [label_of(c.rung) for c in tried if c.reference == control]:
            texts.append(
                f"Not significantly different from {label_of(control)}: {', '.join(rungs)}."
            )
    if unlike := [label_of(c.rung) for c in silent if c.shown.unlike]:
        texts.append(f"Not compared, as more than the method differs: {', '.join(unlike)}.")
    few = [c for c in silent if not c.shown.difference.decides and not c.shown.unlike]
    if single := [label_of(c.rung) for c in few if c.interval.n < DECIDES_FROM]:
        texts.append(f"Fewer than three seeds, so no conclusion: {', '.join(single)}.")
    if level := [label_of(c.rung) for c in few if c.interval.n >= DECIDES_FROM]:
        texts.append(f"No variance between seeds, so no conclusion: {', '.join(level)}.")
    several = (family_sentence(found),) if found.size and found.benches > 1 else ()
    aside = controls_aside(found)
    return (*primary_sentences(found), control_sentence(found), *aside, *texts, *several)


def attrition(found: Family, table: LadderTable) -> tuple[str, ...]:
    """Rungs of which seeds failed, and what the primary claim could be at worst and at best."""
    mean = {row.rung: row.test.mean for row in table.rows if row.bench == found.bench}
    texts = []
    for rung, tried in found.attempts.items():
        if not tried.failed:
            continue
        of = counted(tried.seeds, "seed")
        text = f"{label_of(rung)}: {len(tried.failed)} of {of} failed"
        claim = found.of(rung)
        if claim is not None and (more := claim.attrition) is not None:
            text += (
                f" (of the controls' {more.others} of {more.of_others}; Fisher's exact test "
                f"{p_is(more.p)}): the others are those that survived"
            )
        texts.append(f"{text}.{_bounds(claim, tried.failed, mean)}")
    return tuple(texts)


def _bounds(claim: Claim | None, failed: frozenset[int], mean: dict[str, float]) -> str:
    if claim is None or claim.interval.n == 0 or claim.reference not in mean:
        return ""
    n, lost, control = claim.interval.n, len(failed), mean[claim.reference]
    low, high = ((n * claim.interval.mean + lost * (end - control)) / (n + lost) for end in (0, 1))
    return (
        f" Had they reached 0 or 100 %, {label_of(claim.rung)} − {label_of(claim.reference)} "
        f"would be {points(low)} or {points(high)} points."
    )


def tries(found: Family, kept: pd.DataFrame) -> tuple[str, ...]:
    """Rungs that ran in more configurations than their controls, and what the best of so many
    equal ones is worth by chance."""
    of_controls = max(
        (found.attempts[c].configurations for c in found.controls if c in found.attempts), default=0
    )
    texts = []
    for rung, tried in found.attempts.items():
        count = tried.configurations
        if found.of(rung) is None or count <= max(1, of_controls):
            continue
        high = expected_maximum(count)
        noise = _noise(kept, found.bench, rung)
        worth = "" if math.isnan(noise) else f", about {100 * high * noise:.2f} points"
        texts.append(
            f"{label_of(rung)} ran in {count} configurations, its controls in {of_controls} at "
            f"most: of {count} equal ones the best on validation is {high:.1f} standard errors too "
            f"high by chance{worth}."
        )
    return tuple(texts)


def _noise(kept: pd.DataFrame, bench: str, rung: str) -> float:
    """Standard error of a configuration's mean validation accuracy, from seeds or from images."""
    values = list(logged_by_seed(kept, bench, rung, metrics.BEST_VAL_TOP1).values())
    known = [value for value in values if math.isfinite(value)]
    if len(known) > 1:
        return float(np.std(known, ddof=1)) / math.sqrt(len(known))
    of_rung = kept[column(kept, RUNG_COLUMNS[1]).eq(rung)]
    images = column(of_rung, f"metrics.{metrics.VAL_IMAGES}").astype(float).max()
    if not known or not images >= 1:
        return math.nan
    return math.sqrt(known[0] * (1 - known[0]) / images)


def little_to_teach(
    kept: pd.DataFrame, teachers: tuple[TeacherRow, ...], bench: str
) -> tuple[str, ...]:
    """Where a student without teachers is as good on validation as the best of the experiment's,
    that it is: then a study says little of learning from teachers. Specialised teachers, which
    know some classes only, are not compared."""
    whole = [one for one in teachers if one.bench == bench and not one.some_classes]
    best = max(whole, key=lambda one: one.validation, default=None)
    texts = []
    for rung in ALONE:
        of_seeds = logged_by_seed(kept, bench, rung, metrics.BEST_VAL_TOP1).values()
        alone = mean_interval([value for value in of_seeds if not math.isnan(value)])
        if best is not None and alone.mean >= best.validation:
            texts.append(
                f"{rung} has no teacher and reaches {accuracy_text(alone)} on validation "
                f"(n = {alone.n}), the best teacher, {best.model}, {percent(best.validation)} %: "
                "there is little that it could give. Teachers that know more: "
                "data.teacher_limit, a longer recipe, a larger network."
            )
    return tuple(texts)


def p_is(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def p_value(p: float) -> str:
    """A p-value with three decimals; `–` where there is none."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
