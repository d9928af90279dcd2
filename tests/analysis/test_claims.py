"""Claims of stores with a planted truth: they must be reported as they are."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from analysis.claims import (
    claims,
    control_sentence,
    family_size,
    little_to_teach,
    sentence,
    sentences,
)
from analysis.ladder_numbers import TeacherRow, best_control, ladder_table
from analysis.selection.filters import RunFilter, chosen
from analysis.stats import power
from tests.analysis.frames import distill, runs
from trainers import metrics

SEEDS = range(5)


def store(**effects: float):
    """CE and other rungs at five seeds: noise of 0.2 points a run, effects in points."""
    noise = np.random.default_rng(1)
    rows = [
        distill(rung, seed, 0.7 + effect / 100 + noise.normal(0, 0.002), seconds=10.0)
        for rung, effect in {"CE": 0.0, **effects}.items()
        for seed in SEEDS
    ]
    return runs(*rows)


def found(kept):
    return claims(kept, ladder_table(kept), "toy")


def test_the_primary_claim_is_l4_against_the_best_control_and_needs_no_correction():
    first, *others = found(store(KD=1.0, L3=3.0, L4=5.0))
    assert (first.rung, first.reference, first.primary) == ("L4", "KD", True)
    assert first.adjusted == first.p
    assert first.significant
    assert sentence(first).endswith("× the time: better than KD.")
    assert not any(claim.primary for claim in others)
    assert all(claim.adjusted >= claim.p for claim in others)
    pairs = {(claim.rung, claim.reference) for claim in others}
    assert pairs == {("CE", "KD"), ("L3", "KD"), ("L4", "L3")}


def test_another_rung_may_be_the_one_of_the_primary_claim():
    kept = store(KD=1.0, L2=3.0, L4=5.0)
    first, *others = claims(kept, ladder_table(kept), "toy", "L2")
    assert (first.rung, first.reference, first.primary) == ("L2", "KD", True)
    assert first.adjusted == first.p
    assert ("L4", "KD", False) in {(c.rung, c.reference, c.primary) for c in others}
    frame = kept.assign(start_time=pd.Timestamp(0, tz="UTC"))
    assert len(chosen(frame, RunFilter(primary="L2"))) == len(frame)
    with pytest.raises(ValueError, match="primary=L5: no run of that rung or method"):
        chosen(frame, RunFilter(primary="L5"))


def test_a_harmful_rung_is_worse_and_no_effect_is_not_shown():
    by = {claim.rung: claim for claim in found(store(L0=-5.0, L1=0.0))}
    assert "worse than CE" in sentence(by["L0"])
    only = found(store(L1=0.0))
    assert "not significant" in sentence(only[0])


def test_a_twin_is_called_one_experiment():
    rows = [
        distill(r, s, 0.7 + s / 100 + (r == "CE") / 50) for r in ("CE", "L3", "L4") for s in SEEDS
    ]
    twin = next(c for c in found(runs(*rows)) if (c.rung, c.reference) == ("L4", "L3"))
    assert twin.twin
    assert "are they one experiment?" in sentence(twin)


def test_teachers_that_are_no_better_than_a_student_without_them_are_reported():
    """Of validation, never of test; specialised teachers know some classes only."""
    kept = runs(
        *(
            distill(rung, seed, 0.99, **{f"metrics.{metrics.BEST_VAL_TOP1}": val + seed / 100})
            for rung, val in (("CE", 0.70), ("CE_matched", 0.80), ("L4", 0.95))
            for seed in (0, 1)
        )
    )

    def printed(*teachers: TeacherRow) -> list[str]:
        return [text.split(" has")[0] for text in little_to_teach(kept, teachers, "toy")]

    weak = TeacherRow("toy", "resnet20", 0, 0.75, True, 0.5, 1.0)
    assert printed() == []
    assert printed(weak) == ["CE_matched"]
    assert printed(weak, weak._replace(validation=0.81)) == []
    assert printed(weak._replace(some_classes=True)) == printed(weak._replace(bench="other")) == []
    assert printed(weak._replace(validation=0.6)) == ["CE", "CE_matched"]
    (text,) = little_to_teach(kept, (weak,), "toy")
    assert "80.50 [74.15, 86.85] % of validation (n = 2), the best teacher, resnet20, 75.00" in text
    no_values = kept.drop(columns=f"metrics.{metrics.BEST_VAL_TOP1}")
    assert little_to_teach(no_values, (weak,), "toy") == ()


def test_permutation_only_where_it_can_reject():
    first = found(store(L4=5.0))[0]
    assert math.isnan(first.permutation)  # 2/2⁵ = 0.0625 > 0.05
    rows = [
        distill(r, s, 0.7 + (r == "L4") / 10 + s / 1e4 * (r == "CE"))
        for r in ("CE", "L4")
        for s in range(6)
    ]
    assert found(runs(*rows))[0].permutation == pytest.approx(2 / 2**6)


def test_one_seed_concludes_nothing():
    only = found(runs(distill("CE", 0, 0.7), distill("L4", 0, 0.9)))
    assert "one seed: no interval, no conclusion" in sentence(only[0])
    assert not only[0].significant
    assert only[0].needed is None


def test_other_controls_are_in_the_family_and_another_setting_is_not_compared():
    reported = found(store(KD=1.0, kd=-3.0, L1=0.0))
    assert {(c.rung, c.reference) for c in reported} == {
        ("CE", "KD"),
        ("kd", "KD"),
        ("L1", "KD"),
    }
    rows = [distill("CE", s, 0.7 + s / 100) | {"tags.setting": "a"} for s in SEEDS]
    rows += [distill("L4", s, 0.8) | {"tags.setting": "b"} for s in SEEDS]
    (only,) = found(runs(*rows))
    assert only.interval.n == 0
    assert sentence(only) == (
        "L4 − CE: no seed in common, or other data or budget: nothing to compare."
    )


def test_the_sentences_are_the_control_and_all_against_it_and_the_steps_that_are_shown():
    kept = store(KD=1.0, L2=1.0, L3=1.0, L4=5.0)
    table = ladder_table(kept)
    printed = sentences(table, "toy", claims(kept, table, "toy"))
    starts = [one.split(":")[0] for one in printed]
    assert starts[:2] == ["Best control", "Primary claim"]
    assert "L4 − L3" in starts
    assert "L3 − L2" not in starts
    assert {"CE − KD", "L2 − KD", "L3 − KD"} <= set(starts)


def test_the_best_control_is_reported_with_how_it_was_chosen():
    def printed(kept):
        table = ladder_table(kept)
        return control_sentence(table, best_control(table, "toy"))

    both = runs(distill("CE", 0, 0.7), distill("KD", 0, 0.8), distill("L4", 0, 0.9))
    assert printed(both) == (
        "Best control: KD, test top-1 80.00 % (the highest mean of the controls: a choice that "
        "favours them)."
    )
    assert printed(both[:1]) == "Best control: CE, test top-1 70.00 % (the only control)."


def test_the_report_says_over_how_many_claims_holm_corrects():
    kept = store(KD=1.0, L2=1.0, L3=1.0, L4=5.0)
    table, reported = ladder_table(kept), found(kept)
    assert len(reported) == 6  # L4, CE, L2, L3 against KD, and two steps; the first is primary
    smallest = min(claim.p for claim in reported[1:])
    assert min(claim.adjusted for claim in reported[1:]) == pytest.approx(smallest * 5)
    assert family_size(reported) == 5
    assert sentences(table, "toy", reported)[-1] == (
        "Holm corrects over 5 claims: all but the primary one, those between rungs too."
    )


def test_each_rung_is_compared_with_the_one_before_it_that_ran():
    found_claims = found(store(KD=1.0, L0=1.0, L1=1.0, L3=1.0, L4=5.0))
    pairs = {(c.rung, c.reference): c for c in found_claims}
    assert {("L0", "KD"), ("L1", "L0"), ("L3", "L1"), ("L4", "L3")} <= pairs.keys()
    assert pairs["L4", "L3"].significant
    assert pairs["L4", "L3"].times == 1.0
    assert not pairs["L0", "KD"].significant


def test_a_rung_is_compared_with_its_placebo_and_both_with_the_control():
    reported = found(store(KD=3.0, L2=4.0, L2_null=1.0, KD_null=2.0))
    pairs = [(c.rung, c.reference) for c in reported]
    assert reported[pairs.index(("L2", "L2_null"))].significant
    assert ("KD_null", "KD") in pairs  # the control's placebo is compared once
    assert ("KD", "KD_null") not in pairs
    assert len(set(pairs)) == len(pairs)
    placebo_of_no_control = found(store(KD=-3.0, KD_null=-4.0))
    assert ("KD", "KD_null") in {(c.rung, c.reference) for c in placebo_of_no_control}


def test_a_seed_that_one_of_the_two_lacks_is_in_neither_accuracy_nor_time():
    slow = [distill("CE", s, 0.7 + s / 100, seconds=t) for s, t in enumerate((10, 10, 10, 40))]
    three = [distill("L4", s, 0.8 + s / 100, seconds=15.0) for s in (0, 1, 2)]
    first = found(runs(*slow, *three))[0]
    assert first.interval.n == 3
    assert first.times == pytest.approx(1.5)


def test_unequal_seeds_are_paired_by_what_they_share():
    kept = runs(
        *[distill("CE", s, 0.7 + s / 100) for s in (0, 1, 2)],
        *[distill("L4", s, 0.8 + s / 100) for s in (1, 2, 3)],
    )
    first = found(kept)[0]
    assert first.interval.n == 2
    assert first.interval.mean == pytest.approx(0.1)


def _claims_of(differences_by_rung: dict[str, np.ndarray]):
    rows = [distill("CE", s, 0.7) for s in SEEDS]
    for rung, differences in differences_by_rung.items():
        rows += [distill(rung, s, 0.7 + float(d)) for s, d in enumerate(differences)]
    return found(runs(*rows))


STORES = 60


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_false_alarms_and_power_over_many_stores(effect, monkeypatch):
    """In units of the standard deviation of a difference; L4 against CE, n = 5."""
    monkeypatch.setattr("analysis.claims.seeds_needed", lambda *_: None)  # slow, and not asked
    rungs = ("L4",) if effect else ("L2", "L3", "L4")  # of the primary claim; of the family too
    draw, seen, family = np.random.default_rng(7), 0, 0
    for _ in range(STORES):
        noise = draw.normal(effect, 1.0, (len(rungs), 5)) / 100
        reported = _claims_of(dict(zip(rungs, noise, strict=True)))
        seen += reported[0].significant
        family += any(claim.significant for claim in reported if not claim.primary)
    low, high = binom.interval(0.999, STORES, power(5, effect, 1.0))
    assert low <= seen <= high
    if effect == 0.0:
        assert 1 <= family <= 20


def test_half_a_point_is_found_with_its_size():
    by = {(c.rung, c.reference): c for c in found(store(L3=0.0, L4=0.5))}
    primary = by["L4", "CE"]
    assert primary.interval.low < 0.005 < primary.interval.high
    assert not by["L3", "CE"].significant
