"""What is claimed of a ladder: one primary claim fixed beforehand, all others Holm-corrected.

Accuracies are fractions. Differences are paired by seed.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.cells import (
    accuracy_cell,
    in_percent,
    percent,
    points,
)
from analysis.ladder_numbers import (
    RUNG_ORDER,
    LadderRow,
    LadderTable,
    TeacherRow,
    best_control,
    controls,
    label_of,
    logged_by_seed,
    paired_ratio,
)
from analysis.report_model import counted
from analysis.selection.configurations import same_setting
from analysis.selection.filters import PRIMARY
from analysis.stats import (
    NO_INTERVAL,
    Interval,
    can_permute,
    differences_by_seed,
    holm,
    permutation_test,
    primary_interval,
    seeds_needed,
    t_test,
)
from trainers import metrics

ALONE = ("CE", "CE_matched", "ce")  # students without teachers
_PLACEBO = "_null"  # what the name of a rung's placebo ends in
VISIBLE = 0.005  # the difference that the column of seeds needed is about
LEVEL = 0.05  # of all claims that are not primary together


class Claim(NamedTuple):
    """A rung less its reference. `p` is of the paired t-test, `adjusted` after Holm (the primary
    claim needs none), `permutation` of the sign-flip test, NaN where n cannot give it; `needed`
    is how many seeds would show `VISIBLE` with 80 % power, None where that is not known."""

    bench: str
    rung: str
    reference: str
    primary: bool
    differences: tuple[float, ...]
    interval: Interval
    p: float
    adjusted: float
    permutation: float
    needed: int | None
    times: float  # the reference's time, over the seeds that both have

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level of its family (Holm)."""
        return self.adjusted <= LEVEL

    @property
    def twin(self) -> bool:
        """Whether both are equal at every seed, which different experiments never are."""
        return self.interval.n > 1 and not any(self.differences)


def claims(
    kept: pd.DataFrame, table: LadderTable, bench: str, primary: str = PRIMARY
) -> tuple[Claim, ...]:
    """Every comparison of a bench: the primary one first, of the rung `primary` with the best
    control, then each other rung, method and control with the best control, each rung of the ladder
    with the one before it that ran, and each rung with its placebo."""
    rows = {row.rung: row for row in table.rows if row.bench == bench}
    pairs = _pairs(list(rows), best_control(table, bench), primary)
    accuracy = {rung: logged_by_seed(kept, bench, rung) for rung in rows}
    seconds = {rung: logged_by_seed(kept, bench, rung, metrics.RUN_SECONDS) for rung in rows}
    found = []
    for rung, reference in pairs:
        alike = same_setting(kept, bench, rung, reference)
        differences = differences_by_seed(accuracy[rung], accuracy[reference]) if alike else ()
        times = paired_ratio(seconds[rung], seconds[reference])
        first = rung == primary and (rung, reference) == pairs[0]
        found.append(_claim(bench, rung, reference, first, differences, times))
    return _corrected(found)


def _pairs(rungs: list[str], control: LadderRow | None, primary: str) -> list[tuple[str, str]]:
    others = [] if control is None else [rung for rung in rungs if rung != control.rung]
    against = [(rung, control.rung) for rung in others] if control is not None else []
    first = [pair for pair in against if pair[0] == primary]
    ladder = [rung for rung in RUNG_ORDER if rung in rungs]
    steps = [(b, a) for a, b in itertools.pairwise(ladder) if (a, b) not in against]
    placebos = [pair for pair in _with_placebo(rungs) if pair[::-1] not in against]
    return list(dict.fromkeys([*first, *against, *steps, *placebos]))


def _with_placebo(rungs: Sequence[str]) -> list[tuple[str, str]]:
    return [(rung, rung + _PLACEBO) for rung in rungs if rung + _PLACEBO in rungs]


def _claim(
    bench: str,
    rung: str,
    reference: str,
    primary: bool,
    differences: tuple[float, ...],
    times: float,
) -> Claim:
    interval = primary_interval(differences) if differences else NO_INTERVAL
    p = t_test(differences)
    return Claim(
        bench,
        rung,
        reference,
        primary,
        differences,
        interval,
        p,
        p,
        math.nan,
        _needed(differences),
        times,
    )


def _needed(differences: tuple[float, ...]) -> int | None:
    if len(differences) < 2:
        return None
    return seeds_needed(VISIBLE, float(np.std(differences, ddof=1)))


def _corrected(found: list[Claim]) -> tuple[Claim, ...]:
    """With p-values adjusted over all claims but the primary one."""
    family = [index for index, claim in enumerate(found) if not claim.primary]
    adjusted = dict(zip(family, holm([found[index].p for index in family]), strict=True))
    size = max(1, family_size(found))
    corrected = []
    for index, claim in enumerate(found):
        level = LEVEL if claim.primary else LEVEL / size
        possible = can_permute(claim.interval.n, level)
        corrected.append(
            claim._replace(
                adjusted=adjusted.get(index, claim.p),
                permutation=permutation_test(claim.differences) if possible else math.nan,
            )
        )
    return tuple(corrected)


def family_size(found: Sequence[Claim]) -> int:
    """Over how many claims Holm corrects: all but the primary one that have a p-value."""
    return sum(not claim.primary and not math.isnan(claim.p) for claim in found)


def sentence(claim: Claim) -> str:
    """The claim in words; "better" and "worse" only where its family's level allows it."""
    start, found = f"{label_of(claim.rung)} − {label_of(claim.reference)}:", claim.interval
    if found.n == 0:
        return f"{start} no seed in common, or other data or budget: nothing to compare."
    time = "" if math.isnan(claim.times) else f", {claim.times:.2f} × the time"
    mean = f"{start} {points(found.mean)} points"
    if found.n == 1:
        return f"{mean}{time}; one seed: no interval, no conclusion."
    if claim.twin:
        return f"{start} equal at each of {found.n} seeds: are they one experiment?"
    word = "better" if found.mean > 0 else "worse"
    better = f"{word} than {label_of(claim.reference)}"
    conclusion = better if claim.significant else "not significant"
    p = p_is(claim.p)
    kind = p if claim.primary else f"{p}, after Holm {p_value(claim.adjusted)}"
    return (
        f"{mean}, {in_percent(0.95)} interval {points(found.low)} to {points(found.high)}, "
        f"n = {found.n}, {kind}{time}: {conclusion}."
    )


def sentences(table: LadderTable, bench: str, found: tuple[Claim, ...]) -> tuple[str, ...]:
    """The best control, what each row gives against it, the primary claim first, the steps of the
    ladder and the gains over a placebo whose difference is shown, and over how many claims all but
    the primary one are corrected."""
    control = best_control(table, bench)
    name = "" if control is None else control.rung
    listed = [c for c in found if c.reference == name or c.significant or c.twin]
    texts = ["Primary claim: " * claim.primary + sentence(claim) for claim in listed]
    if size := family_size(found):
        between = ", those between rungs too" * any(c.reference != name for c in found)
        texts.append(
            f"Holm corrects over {counted(size, 'claim')}: all but the primary one{between}."
        )
    return (*([control_sentence(table, control)] if control is not None else ()), *texts)


def control_sentence(table: LadderTable, control: LadderRow) -> str:
    """Which control is the best, and how it was chosen."""
    others = [one for one in controls(table, control.bench) if one.rung != control.rung]
    chosen = "the highest mean of the controls: a choice that favours them"
    why = chosen if others else "the only control"
    mean = percent(control.test.mean)
    return f"Best control: {label_of(control.rung)}, test top-1 {mean} % ({why})."


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
        alone = primary_interval([value for value in of_seeds if not math.isnan(value)])
        if best is not None and alone.mean >= best.validation:
            texts.append(
                f"{rung} has no teacher and reaches {accuracy_cell(alone)} % of validation "
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
